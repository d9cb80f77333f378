"""The folder of a simulation: which one it belongs to, so that another one does not go on in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geoeq.errors import InputError
from geoeq.files import write_text
from geoeq.simulate.md.simulation import LAST, LOG, STATE, TRAJECTORY
from geoeq.typed import differences

__all__ = ["PICTURE", "RESULTS", "SETTINGS", "claim_folder"]

SETTINGS, RESULTS, PICTURE = "settings.json", "results.json", "summary.png"

#: All that is ever written into the folder.
_WRITTEN = (SETTINGS, RESULTS, PICTURE, LAST, LOG, STATE, TRAJECTORY)


def claim_folder(folder: Path, description: dict[str, Any], decides: dict[str, Any], *, again: bool = False) -> None:
    """Write ``settings.json`` into a folder that is new, empty, or holds the same simulation.

    Args:
        folder: it need not exist.
        description: what is written.
        decides: the parts of it that must be the same for a simulation that goes on.
        again: throw away what an earlier one left here.

    Raises:
        InputError: it holds another simulation, or files that are none's. The message says what differs.
    """
    file = folder / SETTINGS
    if file.is_file() and (again or not (folder / STATE).is_file()):  # without a state nothing was done
        for name in _WRITTEN:
            (folder / name).unlink(missing_ok=True)
    elif file.is_file():
        found = _differences(_read(file), decides)
        if found:
            raise InputError(
                f"The folder '{folder}' holds another simulation ({'; '.join(found[:3])}). Choose another one with "
                "--output FOLDER, or throw that one away: --again."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"The folder '{folder}' holds other files. Choose another one with --output FOLDER.")
    write_text(file, json.dumps(description, indent=2, ensure_ascii=False) + "\n")


def _differences(old: dict[str, Any], decides: dict[str, Any]) -> list[str]:
    found = []
    for part, values in decides.items():
        before = old.get(part)
        found += differences(before if isinstance(before, dict) else {}, values, set(values), f"{part}: ")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is truncated or altered. Delete its folder to start again.") from error
    return found if isinstance(found, dict) else {}
