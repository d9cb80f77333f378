"""A trained model as two files that can be read from a stranger: weights as safetensors, the rest as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

import geoeq
from geoeq.errors import CheckpointError, GeoeqError
from geoeq.files import atomic_write, file_sha256, write_text
from geoeq.models.config import from_config
from geoeq.models.model import Model

__all__ = ["FORMAT_VERSION", "checkpoint_sha256", "load_checkpoint", "save_checkpoint"]

FORMAT = "geoeq model"
FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


def save_checkpoint(model: Model, path: str | Path, meta: dict[str, Any] | None = None) -> None:
    """Write a model into the folder ``path``, as model.safetensors and model.json.

    Args:
        model: in any dtype, on any device.
        path: the folder; it is made if it is not there.
        meta: JSON values to keep beside it: the training data, the units of the report, versions.
    """
    from safetensors.torch import save_file

    folder = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary)
        digest = file_sha256(temporary)
    fields = {
        name: {"level": field.level, "irreps": field.irreps, "unit": field.unit} for name, field in model.fields.items()
    }
    description = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "geoeq": geoeq.__version__,
        "model": model.config(),
        "dtype": _dtype(model),
        "fields": fields,
        "conservative": model.conservative,
        "cutoff": model.cutoff,
        "elements": None if model.elements is None else list(model.elements),
        "sha256": digest,
        "meta": meta or {},
    }
    write_text(folder / DESCRIPTION, json.dumps(description, indent=2, ensure_ascii=False) + "\n")


def load_checkpoint(path: str | Path) -> tuple[Model, dict[str, Any]]:
    """The model of a run or checkpoint folder, in evaluation mode on the CPU, and its meta data.

    Nothing is unpickled. The class is imported by its path, and must be a Model.

    Raises:
        CheckpointError: a file is missing, truncated, altered, of a newer geoeq, or does not fit the class. The
            message names the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = _checkpoint_folder(Path(path))
    description = _read_description(folder / DESCRIPTION)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing; it belongs beside {DESCRIPTION}.")
    if file_sha256(weights) != description["sha256"]:
        raise CheckpointError(f"{weights} is truncated or altered: its checksum is not the one in {DESCRIPTION}.")
    try:
        tensors = load_file(weights)
        model = from_config(description["model"], Model).to(  # type: ignore[type-abstract]
            getattr(torch, description["dtype"])
        )
        model.load_state_dict(tensors)
        if description["elements"] is not None:
            model.set_elements(description["elements"])
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{weights} does not fit {description['model']['class_path']}: {error}") from error
    except GeoeqError as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: {error}") from error
    return model.eval(), description["meta"]


def checkpoint_sha256(path: str | Path) -> str:
    """The checksum of the weights of a run or checkpoint folder, as its description gives it.

    Raises:
        CheckpointError: there is none, or its description cannot be read.
    """
    return str(_read_description(_checkpoint_folder(Path(path)) / DESCRIPTION)["sha256"])


def _checkpoint_folder(run: Path) -> Path:
    for folder in (run, run / "checkpoint"):
        if (folder / DESCRIPTION).is_file() or (folder / WEIGHTS).is_file():
            return folder
    raise CheckpointError(
        f"There is no trained model in '{run}': neither {DESCRIPTION} nor checkpoint/{DESCRIPTION}. "
        "Give the folder of a finished run, such as runs/qm7-egnn."
    )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; it belongs beside {WEIGHTS}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is truncated or altered: it is not JSON ({error}).") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not describe a model of geoeq.")
    if not isinstance(description.get("version"), int) or description["version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {description.get('version')}, written by geoeq {description.get('geoeq')}; "
            f"this is geoeq {geoeq.__version__}, which reads up to version {FORMAT_VERSION}. Install a newer geoeq."
        )
    needed = ("model", "dtype", "elements", "sha256", "meta")
    absent = [key for key in needed if key not in description]
    if absent or description["dtype"] not in ("float32", "float64"):
        raise CheckpointError(f"{path} is altered: it lacks {', '.join(absent) or 'a known dtype'}.")
    return description


def _dtype(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")
