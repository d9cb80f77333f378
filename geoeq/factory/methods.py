"""The methods that label structures: by a short name, or any calculator of ASE by its class path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geoeq.errors import InputError, unknown_name
from geoeq.fields import FIELDS
from geoeq.typed import Origin, import_object

__all__ = ["METHODS", "Method", "find_method", "method_version"]

#: What a calculator of ASE may give, by the same name in ``geoeq.fields``.
_PROPERTIES = ("energy", "forces", "dipole", "charges", "homo", "lumo", "gap")

_ASE = "A. H. Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017)"


@dataclass(frozen=True)
class Method:
    """A calculator of ASE, and what is known of it.

    Attributes:
        title: a few words.
        class_path: of the calculator.
        arguments: of its constructor, beside charge and multiplicity where it takes them.
        citation: of the method.
        fields: what it gives, in ASE's units, which are those of ``geoeq.fields``.
        takes: which of "charge" and "multiplicity" its constructor takes.
        package: the distribution whose version is noted.
    """

    title: str
    class_path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    citation: str = ""
    fields: tuple[str, ...] = ("energy", "forces")
    takes: tuple[str, ...] = ()
    package: str = "ase"

    def make(self, charge: int = 0, multiplicity: int = 1) -> Any:
        """The calculator for structures of a total charge (e) and spin multiplicity.

        Raises:
            InputError: there is a charge, or an unpaired electron, of which the method knows nothing.
        """
        if charge and "charge" not in self.takes:
            raise InputError(f"{self.title} knows no charges, and this structure has one of {charge:+d} e.")
        if multiplicity > 2 and "multiplicity" not in self.takes:
            raise InputError(f"{self.title} knows no spins, and this structure has a multiplicity of {multiplicity}.")
        electrons = {"charge": charge, "multiplicity": multiplicity}
        kind = _import(self.class_path)
        return kind(**self.arguments, **{name: electrons[name] for name in self.takes})


def _xtb(name: str, citation: str) -> Method:
    return Method(
        name,
        "geoeq.factory.xtb.XTB",
        arguments={"method": name},
        citation=citation,
        fields=_PROPERTIES,
        takes=("charge", "multiplicity"),
        package="tblite",
    )


METHODS: dict[str, Method] = {
    "gfn2": _xtb("GFN2-xTB", "C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019)"),
    "gfn1": _xtb("GFN1-xTB", "S. Grimme, C. Bannwarth, P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017)"),
    "emt": Method(
        "effective medium theory (Al, Ni, Cu, Pd, Ag, Pt, Au; H, C, N, O for show only)",
        "ase.calculators.emt.EMT",
        citation=f"K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996); {_ASE}",
    ),
    "lj": Method(
        "Lennard-Jones potential, of argon if nothing else is told",
        "ase.calculators.lj.LennardJones",
        arguments={"sigma": 3.40, "epsilon": 0.01034, "rc": 10.2, "smooth": True},
        citation=f"A. Rahman, Phys. Rev. 136, A405 (1964), for argon: 3.40 Å and 120 K; {_ASE}",
    ),
}


def find_method(name: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """The method called ``name``, or that of a calculator by its class path; it is made once, to see that it can be.

    Args:
        name: of ``METHODS``, or as in ``ase.calculators.emt.EMT``.
        arguments: for the calculator, over those of the method.

    Raises:
        InputError: there is none of this name, it is no calculator with energies and forces, or an argument is wrong.
        MissingExtraError: its package is not installed; the message names the extra.
    """
    if name not in METHODS and "." not in name:
        raise InputError(f"--method: {unknown_name('method', name, METHODS)} Or give the class path of a calculator.")
    known = METHODS[name] if name in METHODS else _of_class(name)
    method = Method(**{**vars(known), "arguments": {**known.arguments, **(arguments or {})}})
    _check_arguments(name, method)
    try:
        made = method.make()
    except (TypeError, ValueError) as error:
        raise InputError(f"--method {name}: its arguments {dict(method.arguments)} do not fit: {error}") from error
    lacking = {"energy", "forces"} - set(getattr(made, "implemented_properties", ()))
    if lacking:
        raise InputError(f"--method {name}: it is no calculator of ASE with energy and forces (no {min(lacking)}).")
    if name in METHODS:
        return method
    given = tuple(name for name in _PROPERTIES if name in made.implemented_properties and name in FIELDS)
    return Method(**{**vars(method), "fields": given})


def method_version(method: Method) -> str:
    """The version of the program that computes, as in ``tblite 0.8.0``."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{method.package} {version(method.package)}"
    except PackageNotFoundError:
        return f"{method.package}, of no known version"


def _check_arguments(name: str, method: Method) -> None:
    """ASE's calculators take any argument and ignore those that they do not know."""
    kind = _import(method.class_path)
    parameters = inspect.signature(kind).parameters
    defaults = getattr(kind, "default_parameters", {})
    if not defaults or all(one.kind is not one.VAR_KEYWORD for one in parameters.values()):
        return
    for argument in method.arguments:
        if argument not in defaults and argument not in parameters:
            raise InputError(f"--method {name}: {unknown_name('argument', argument, [*defaults, *parameters])}")


def _of_class(path: str) -> Method:
    parameters = inspect.signature(_import(path)).parameters
    return Method(
        title=path,
        class_path=path,
        citation="that of the calculator",
        takes=tuple(name for name in ("charge", "multiplicity") if name in parameters),
        package=path.partition(".")[0],
    )


def _import(path: str) -> Any:
    return import_object(path, Origin(f"--method {path}", error=InputError))
