"""Where the model with an uncertainty is that belongs to a run."""

from __future__ import annotations

from pathlib import Path

from geoeq.errors import CheckpointError, InputError
from geoeq.fields import FIELDS
from geoeq.models.checkpoint import checkpoint_sha256, load_checkpoint

__all__ = ["FOLDER", "uncertain_folder"]

#: In the folder of a run: its model with an uncertainty.
FOLDER = "uncertainty"


def uncertain_folder(run: Path, *, trust: bool = False) -> Path:
    """The folder of the checkpoint that knows its uncertainty: ``run`` itself, or what was made of it.

    Args:
        run: a run of ``geoeq train`` that was calibrated, or what ``geoeq calibrate`` wrote.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Raises:
        CheckpointError: there is no checkpoint, or the run was trained again since.
        InputError: the run was not calibrated.
    """
    model, _ = load_checkpoint(run, trust=trust)
    if set(model.fields) - set(FIELDS):
        return run
    made = run / FOLDER
    if not made.is_dir():
        raise InputError(f"The model in '{run}' does not know its uncertainty. Calibrate it: geoeq calibrate {run}")
    _, meta = load_checkpoint(made, trust=trust)
    sources = meta.get("uncertainty", {}).get("sources", [])
    if checkpoint_sha256(run) not in [source["sha256"] for source in sources]:
        raise CheckpointError(
            f"'{made}' was made of another model than the one that is in '{run}' now. Calibrate it again: geoeq "
            f"calibrate {run}"
        )
    return made
