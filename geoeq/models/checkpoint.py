"""Trained models in two files that are safe to load: weights as safetensors, everything else as JSON."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import geoeq
from geoeq.documents import read_json
from geoeq.errors import CheckpointError, GeoeqError
from geoeq.files import atomic_write, check_regular, file_sha256, write_json
from geoeq.models.config import from_config
from geoeq.models.model import Model
from geoeq.models.potential_cards import fetched_potential, is_potential, similar_potential
from geoeq.models.updates import UPDATES, Contents
from geoeq.trust import Trust

__all__ = ["FORMAT_VERSION", "UPDATES", "checkpoint_sha256", "load_checkpoint", "save_checkpoint", "weights_sha256"]

FORMAT = "geoeq model"
FORMAT_VERSION = 2
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"

#: A model may be built with this many parameters plus twice the numbers in its file.
_FREE_PARAMETERS = 1_000_000


def save_checkpoint(model: Model, path: str | Path, meta: dict[str, Any] | None = None) -> None:
    """Write a model into the folder ``path``, as model.safetensors and model.json.

    Args:
        model: the model, in any dtype and on any device.
        path: the folder, which is created if needed.
        meta: JSON values to store with the model: the training data, the units of the report, versions.
    """
    from safetensors.torch import save_file

    folder = Path(path)
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file(_tensors(model), temporary)
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
    write_json(folder / DESCRIPTION, description)


def load_checkpoint(path: str | Path, *, trust: Trust = False) -> tuple[Model, dict[str, Any]]:
    """Load the model of a run or checkpoint folder, in evaluation mode on the CPU, and its metadata.

    Nothing is unpickled, and code that is not geoeq's is neither imported nor executed unless ``trust`` allows it.
    Checkpoints of older versions are updated. An existing path takes precedence over a potential of that name.

    Args:
        path: folder of a run or of a checkpoint, or name of a published potential that was fetched, such as "7net-0".
        trust: True, or names of modules outside geoeq whose classes the checkpoint may name, such as "my_module".
            Modules that are already imported are allowed.

    Raises:
        CheckpointError: a file is missing, truncated, altered or written by a newer geoeq, the weights do not fit the
            class, or the class is not part of geoeq and not trusted; or a published potential was not fetched. The
            message names the file.
    """
    folder = _checkpoint_folder(Path(path))
    description, tensors = _update(folder, *_read(folder))
    try:
        with torch.inference_mode(False):  # else the parameters could never be used in derivatives
            with _at_most(sum(tensor.numel() for tensor in tensors.values())):
                model = from_config(description["model"], Model, trust=trust)  # type: ignore[type-abstract]
            model = model.to(getattr(torch, description["dtype"]))
            if description["elements"] is not None:
                model.set_elements(description["elements"])
    except GeoeqError as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: {error}") from error
    mismatch = _mismatch(model.state_dict(), tensors)
    if mismatch:
        raise CheckpointError(f"{folder / WEIGHTS} does not fit {description['model']['class_path']}: {mismatch}.")
    model.load_state_dict(tensors)
    return model.eval(), description["meta"]


@contextlib.contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Stop building a model with far more parameters than the weights have: an altered number of layers has no end."""
    total = 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel()
        if total > _FREE_PARAMETERS + 2 * count:
            raise CheckpointError(f"it describes far more parameters than the {count} numbers in {WEIGHTS}.")

    handle = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _mismatch(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Describe in a line how tensors differ from those of a model; empty if they fit."""
    shapes = [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    groups = {
        "missing": [name for name in expected if name not in tensors],
        "left over": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {[*tensors[name].shape]} instead of {[*expected[name].shape]}" for name in shapes
        ],
    }
    parts = [
        f"{len(names)} {kind}, such as {names[0]}" if len(names) > 1 else f"{names[0]} is {kind}"
        for kind, names in groups.items()
        if names
    ]
    return "; ".join(parts)


def checkpoint_sha256(path: str | Path) -> str:
    """Return the checksum of the weights of a run, checkpoint or published potential, as stored in its description.

    Raises:
        CheckpointError: the folder has no checkpoint, or its description cannot be read.
    """
    return str(_read_description(_checkpoint_folder(Path(path)) / DESCRIPTION)["sha256"])


def weights_sha256(model: Model) -> str:
    """Return the checksum that the weights of a model have in a checkpoint."""
    from safetensors.torch import save

    separate = {name: value.clone() for name, value in _tensors(model).items()}  # others are refused
    return hashlib.sha256(save(separate)).hexdigest()


def _tensors(model: Model) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _checkpoint_folder(run: Path) -> Path:
    for folder in (run, run / "checkpoint"):
        if (folder / DESCRIPTION).is_file() or (folder / WEIGHTS).is_file():
            return folder
    if is_potential(run):
        return fetched_potential(str(run))
    text = f"There is no trained model in '{run}': neither {DESCRIPTION} nor checkpoint/{DESCRIPTION}. "
    text += "Give the folder of a finished run, such as runs/qm7-egnn"
    similar = similar_potential(str(run))
    if similar is not None and run.exists():
        text += f"; or for the published potential '{similar}', rename this path, which takes precedence over it"
    elif similar is not None:
        text += f", or the name of a published potential. Did you mean '{similar}'?"
    raise CheckpointError(text if text.endswith("?") else f"{text}.")


def _read(folder: Path) -> Contents:
    """Return the description and the tensors of a checkpoint of any version."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description, weights = _read_description(folder / DESCRIPTION), folder / WEIGHTS
    check_regular(weights, CheckpointError)
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing; it belongs beside {DESCRIPTION}.")
    if file_sha256(weights) != description["sha256"]:
        raise CheckpointError(f"{weights} is truncated or altered: its checksum is not the one in {DESCRIPTION}.")
    try:
        return description, load_file(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{weights} is not a safetensors file: {error}") from error


def _read_description(path: Path) -> dict[str, Any]:
    check_regular(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; it belongs beside {WEIGHTS}.")
    description = read_json(path, CheckpointError)
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise CheckpointError(f"{path} does not describe a model of geoeq.")
    version = description.get("version")
    if not isinstance(version, int):
        raise CheckpointError(f"{path} is altered: its version is {version!r}, not a whole number.")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {version}, written by geoeq {description.get('geoeq')}; "
            f"this is geoeq {geoeq.__version__}, which reads up to version {FORMAT_VERSION}. Install a newer geoeq."
        )
    _check_keys(path, description, ("sha256",))
    return description


def _update(folder: Path, description: dict[str, Any], tensors: dict[str, Tensor]) -> Contents:
    """Bring a checkpoint of an older version to today's, one version after the other."""
    path = folder / DESCRIPTION
    for version in range(description["version"], FORMAT_VERSION):
        if version not in UPDATES:
            raise CheckpointError(
                f"{path} has format version {description['version']}, written by geoeq {description.get('geoeq')}, "
                f"which this geoeq {geoeq.__version__} cannot read: it has no update for version {version}. Use "
                "the geoeq that wrote it."
            )
        try:
            description, tensors = UPDATES[version](description, tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    _check_keys(path, description, ("model", "dtype", "elements", "meta"))
    if description["dtype"] not in ("float32", "float64"):
        raise CheckpointError(f"{path} is altered: its dtype is {description['dtype']!r}, not 'float32' or 'float64'.")
    return description, tensors


def _check_keys(path: Path, description: dict[str, Any], needed: tuple[str, ...]) -> None:
    missing = [key for key in needed if key not in description]
    if missing:
        raise CheckpointError(f"{path} is altered: it lacks {', '.join(missing)}.")


def _dtype(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")
