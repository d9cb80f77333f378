"""The folder of a data set that is being made: its sources, its plan, and the lock on it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase

import geoeq
from geoeq.documents import read_json
from geoeq.errors import DataError, InputError
from geoeq.factory.methods import Method, method_version
from geoeq.factory.settings import Settings
from geoeq.files import file_sha256, write_text
from geoeq.resources import import_extra

__all__ = ["Sources", "locked", "make_plan", "prepare_folder", "programs"]

#: Names of all files in the folder of a data set.
_FILES = ("card.yaml", "plan.json", "failures.csv", "molecules.csv", "structures", ".work")


@dataclass(frozen=True)
class Sources:
    """Sources of the structures: SMILES and files, or surfaces and adsorbates.

    Attributes:
        smiles: one SMILES per molecule.
        structures: files that ASE reads, and sdf files. The ``info`` of a frame may specify ``charge`` (default 0) and
            ``multiplicity`` (default: the lowest possible).
        surfaces: surfaces such as ``Cu:fcc111:2x2x4``.
        adsorbates: atoms, and molecules of ``ase.build.molecule``; each is placed on every site of every surface.
    """

    smiles: tuple[str, ...] = ()
    structures: tuple[str | Path, ...] = ()
    surfaces: tuple[str, ...] = ()
    adsorbates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.surfaces) != bool(self.adsorbates):
            raise InputError("Give surfaces and adsorbates together: --surface Cu:fcc111:2x2x4 --adsorbates H,O,CO.")
        if bool(self.surfaces) == bool(self.smiles or self.structures):
            raise InputError(
                "Give either SMILES and files of structures, or surfaces with adsorbates, as sources of a data set."
            )


def make_plan(sources: Sources, settings: Settings, method: Method) -> dict[str, Any]:
    """Return everything that determines the numbers, as plain values.

    Raises:
        DataError: a file of structures cannot be read.
    """
    names = {
        "smiles": list(sources.smiles),
        "structures": [{"file": path.name, "sha256": _sha256(path)} for path in map(Path, sources.structures)],
        "surfaces": list(sources.surfaces),
        "adsorbates": list(sources.adsorbates),
    }
    return {
        "method": method.title,
        "programs": programs(method, smiles=bool(sources.smiles)),
        "settings": {name: value for name, value in asdict(settings).items() if value is not None},
        "sources": {name: value for name, value in names.items() if value},
    }


def programs(method: Method, *, smiles: bool) -> list[str]:
    """Return the versions of the programs that compute the numbers on this machine.

    Args:
        method: method of the data set.
        smiles: whether molecules are built from SMILES.
    """
    versions = {f"geoeq {geoeq.__version__}", f"ase {ase.__version__}", method_version(method)}
    if smiles:
        versions.add(f"rdkit {import_extra('rdkit', 'chem').__version__}")
    return sorted(versions)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"{path}: the file of structures cannot be read ({error}).") from error


def prepare_folder(folder: Path, plan: Mapping[str, Any], again: bool) -> None:
    """Write the plan into an empty folder, or check that the folder belongs to ``plan``.

    Args:
        folder: folder of the data set.
        plan: plan of ``make_plan``.
        again: delete the data set that is in the folder.

    Raises:
        InputError: the folder holds a data set of other sources or settings, or other files.
    """
    note, text = folder / "plan.json", json.dumps(plan, indent=1, ensure_ascii=False)
    known = note.is_file()
    if not known and any(not path.name.startswith(".plan-") for path in folder.iterdir()):  # left by a kill
        raise InputError(f"The folder {folder} holds other files. Give a new folder.")
    if known and not again:
        if (old := read_json(note, InputError)) == json.loads(text):
            return
        raise InputError(
            f"The folder {folder} holds a data set of other settings: {_differences(old, plan)}. Give another folder, "
            "or --again to delete that data set."
        )
    for path in (folder / name for name in _FILES):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    write_text(note, text)


def _differences(known: Any, plan: Mapping[str, Any]) -> str:
    """Describe the differences, as in ``seed 0, not 1``."""
    try:
        old, new = ({**values, **values["settings"], **values["sources"]} for values in (known, plan))
    except (KeyError, TypeError):
        return "its plan.json is altered"
    names = [name for name in sorted({*old, *new} - {"settings", "sources"}) if old.get(name) != new.get(name)]
    return "; ".join(f"{name} {_short(old.get(name))}, not {_short(new.get(name))}" for name in names)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]} .."


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder if it does not exist, and lock it against other processes.

    Raises:
        InputError: another process has locked it, or it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{folder} is a file; give the name of a folder.") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(f"Another process is making {folder}.") from error
    finally:
        os.close(descriptor)
