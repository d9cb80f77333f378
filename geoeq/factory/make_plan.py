"""The folder of a set: to which sources and settings it belongs, and who is making it."""

from __future__ import annotations

import fcntl
import hashlib
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
from geoeq.errors import DataError, InputError
from geoeq.factory.methods import Method, method_version
from geoeq.factory.settings import Settings
from geoeq.resources import import_extra

__all__ = ["Sources", "locked", "make_plan", "prepare_folder", "programs"]

#: What is in the folder of a set.
_FILES = ("card.yaml", "plan.json", "failures.csv", "molecules.csv", "structures", ".work")


@dataclass(frozen=True)
class Sources:
    """What the structures are made from: SMILES and files, or surfaces.

    Attributes:
        smiles: one for each molecule.
        structures: files that ASE reads, and sdf. ``charge`` and ``multiplicity`` of a frame are those in its ``info``;
            neutral, and with as few unpaired electrons as can be, if it says none.
        surfaces: such as ``Cu:fcc111:2x2x4``.
        adsorbates: atoms, and molecules of ``ase.build.molecule``; each on every site of every surface.
    """

    smiles: tuple[str, ...] = ()
    structures: tuple[Path, ...] = ()
    surfaces: tuple[str, ...] = ()
    adsorbates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.surfaces) != bool(self.adsorbates):
            raise InputError("Surfaces and adsorbates go together: --surface Cu:fcc111:2x2x4 --adsorbates H,O,CO.")
        if bool(self.surfaces) == bool(self.smiles or self.structures):
            raise InputError(
                "A set is made from SMILES and files of structures, or from surfaces: give one of the two."
            )


def make_plan(sources: Sources, settings: Settings, method: Method) -> dict[str, Any]:
    """All that decides the numbers, as plain values.

    Raises:
        DataError: a file of structures cannot be read.
    """
    given = {
        "smiles": list(sources.smiles),
        "structures": [{"file": path.name, "sha256": _sha256(path)} for path in sources.structures],
        "surfaces": list(sources.surfaces),
        "adsorbates": list(sources.adsorbates),
    }
    return {
        "method": method.title,
        "programs": programs(method, smiles=bool(sources.smiles)),
        "settings": {name: value for name, value in asdict(settings).items() if value is not None},
        "sources": {name: value for name, value in given.items() if value},
    }


def programs(method: Method, *, smiles: bool) -> list[str]:
    """Versions of what computes the numbers, here.

    Args:
        method: of the set.
        smiles: whether there are molecules to be built.
    """
    found = {f"geoeq {geoeq.__version__}", f"ase {ase.__version__}", method_version(method)}
    if smiles:
        found.add(f"rdkit {import_extra('rdkit', 'chem').__version__}")
    return sorted(found)


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: the file of structures cannot be read ({error}).") from error


def prepare_folder(folder: Path, plan: Mapping[str, Any], again: bool) -> None:
    """Write the plan into an empty folder, or see that what is in it belongs to ``plan``.

    Args:
        folder: of the set.
        plan: of ``make_plan``.
        again: throw away what belongs to a set.

    Raises:
        InputError: it holds a set that was made otherwise, or other things.
    """
    note, text = folder / "plan.json", json.dumps(plan, indent=1, ensure_ascii=False)
    known = note.read_text(encoding="utf-8") if note.is_file() else None
    if known is None and any(folder.iterdir()):
        raise InputError(f"The folder {folder} holds other things. Give a new one.")
    if known == text and not again:
        return
    if known is not None and not again:
        raise InputError(
            f"The folder {folder} holds a set that was made otherwise: {_differing(json.loads(known), plan)}. Give "
            "another folder, or --again to throw that away."
        )
    for path in (folder / name for name in _FILES):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    temporary = folder.with_name(f".{folder.name}-plan")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(note)


def _differing(known: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """What is different, as in ``seed 0, not 1``."""
    old, new = ({**values, **values["settings"], **values["sources"]} for values in (known, plan))
    names = [name for name in sorted({*old, *new} - {"settings", "sources"}) if old.get(name) != new.get(name)]
    return "; ".join(f"{name} {_short(old.get(name))}, not {_short(new.get(name))}" for name in names)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]} .."


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder if it is not there, and keep other processes from making a set in it.

    Raises:
        InputError: one does, or it is a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{folder} is a file; the name of a folder would be right.") from error
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise InputError(f"Another process is making {folder}.") from error
    finally:
        os.close(descriptor)
