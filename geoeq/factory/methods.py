"""Methods that label structures: those with a short name, and any calculator of ASE by its class path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from geoeq.errors import InputError, unknown_name
from geoeq.fields import FIELDS
from geoeq.typed import Origin, import_object

__all__ = ["METHODS", "Method", "find_method", "method_version"]

#: Properties of ASE's calculators that have the same name in ``geoeq.fields``.
_PROPERTIES = ("energy", "forces", "dipole", "charges", "homo", "lumo", "gap")

_ASE = "A. H. Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017)"


@dataclass(frozen=True)
class Method:
    """A calculator of ASE and its description.

    Attributes:
        title: short description.
        class_path: class path of the calculator.
        arguments: arguments of its constructor, except charge and multiplicity.
        citation: reference of the method.
        fields: quantities that it computes, in ASE's units, which are those of ``geoeq.fields``.
        takes: which of "charge" and "multiplicity" its constructor accepts.
        package: distribution whose version is recorded.
    """

    title: str
    class_path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    citation: str = ""
    fields: tuple[str, ...] = ("energy", "forces")
    takes: tuple[str, ...] = ()
    package: str = "ase"

    def make(self, charge: int = 0, multiplicity: int = 1) -> Any:
        """Return the calculator for structures of a total charge (e) and spin multiplicity.

        Raises:
            InputError: the method does not support the charge or the multiplicity.
        """
        if charge and "charge" not in self.takes:
            raise InputError(f"{self.title} does not support charges; this structure has {charge:+d} e.")
        if multiplicity > 2 and "multiplicity" not in self.takes:
            raise InputError(
                f"{self.title} does not support spins; this structure has the multiplicity {multiplicity}."
            )
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
        "effective medium theory (Al, Ni, Cu, Pd, Ag, Pt, Au; H, C, N, O only for demonstration)",
        "ase.calculators.emt.EMT",
        citation=f"K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996); {_ASE}",
    ),
    "lj": Method(
        "Lennard-Jones potential (of argon by default)",
        "ase.calculators.lj.LennardJones",
        arguments={"sigma": 3.40, "epsilon": 0.01034, "rc": 10.2, "smooth": True},
        citation=f"A. Rahman, Phys. Rev. 136, A405 (1964), for argon: 3.40 Å and 120 K; {_ASE}",
    ),
}


def find_method(name: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """Return the method called ``name``, after creating its calculator once to verify the arguments.

    Args:
        name: name in ``METHODS``, or class path of a calculator, such as ``ase.calculators.emt.EMT``.
        arguments: arguments of the calculator, which override those of the method.

    Raises:
        InputError: the name is unknown, the class is not a calculator with energies and forces, or an argument is
            wrong.
        MissingExtraError: the package of the method is not installed; the message names the extra.
    """
    if name not in METHODS and "." not in name:
        raise InputError(f"--method: {unknown_name('method', name, METHODS)} Or give the class path of a calculator.")
    known = METHODS[name] if name in METHODS else _of_class(name)
    method = Method(**{**vars(known), "arguments": {**known.arguments, **(arguments or {})}})
    _check_arguments(name, method)
    try:
        calculator = method.make()
    except (TypeError, ValueError) as error:
        raise InputError(f"--method {name}: the arguments {dict(method.arguments)} are invalid: {error}") from error
    lacking = {"energy", "forces"} - set(getattr(calculator, "implemented_properties", ()))
    if lacking:
        raise InputError(f"--method {name}: it is not a calculator of ASE with energy and forces (no {min(lacking)}).")
    if name in METHODS:
        return method
    fields = tuple(name for name in _PROPERTIES if name in calculator.implemented_properties and name in FIELDS)
    return Method(**{**vars(method), "fields": fields})


def method_version(method: Method) -> str:
    """Return the version of the program that computes, such as ``tblite 0.8.0``."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{method.package} {version(method.package)}"
    except PackageNotFoundError:
        return f"{method.package}, of unknown version"


def _check_arguments(name: str, method: Method) -> None:
    """Refuse unknown arguments, which ASE's calculators would silently ignore."""
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
