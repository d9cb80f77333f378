"""What a killed run needs to go on as if nothing had happened, written at the end of every epoch and within long ones.

The file is of tensors, numbers and text only, and is read with ``weights_only``: nothing is unpickled from it.
Lightning's own checkpoint files do not promise that, and do not resume to the same bits (plateaus and the
average weights are left out), so they are not used.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from geoeq.errors import CheckpointError
from geoeq.training.files import written_whole

__all__ = ["load_state", "save_state"]

STATE_VERSION = 2


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, and lists and dicts of those), whole or not at all."""
    with written_whole(path) as temporary:
        torch.save({"version": STATE_VERSION, **state}, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """The state in ``path``, on the CPU.

    Raises:
        CheckpointError: the file is truncated, altered, or of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or altered, so this run cannot go on. Delete its folder to start again."
        ) from error
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise CheckpointError(f"{path} is of another version of geoeq; finish the run with that version.")
    return state
