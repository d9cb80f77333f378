"""What every ``from_reference`` needs: the authors' hyperparameters checked, their parameters put in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from geoeq.errors import CheckpointError, unknown_name

__all__ = ["check_hyperparameters", "load_parameters"]


def check_hyperparameters(
    network: str, given: Mapping[str, Any], needed: Collection[str], optional: Collection[str]
) -> None:
    """Nothing, where all that is needed is given, and nothing unknown.

    Raises:
        CheckpointError: a hyperparameter is unknown, or missing.
    """
    known = {*needed, *optional}
    for name in given:
        if name not in known:
            raise CheckpointError(f"{network}.from_reference: {unknown_name('hyperparameter', name, known)}")
    for name in sorted(needed):
        if name not in given:
            raise CheckpointError(f"{network}.from_reference needs the hyperparameter '{name}'.")


def load_parameters(
    model: nn.Module, state_dict: Mapping[str, Tensor], names: Mapping[str, str], buffers: Collection[str] = ()
) -> None:
    """Fill ``model`` with parameters under other names.

    Args:
        model: all of its parameters are filled; other buffers than those named keep their values.
        state_dict: parameters under the authors' names.
        names: the authors' names of modules, or of single parameters, and ours.
        buffers: our names of the buffers that are filled too.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    ours: dict[str, Tensor] = dict(model.named_parameters()) | {name: model.get_buffer(name) for name in buffers}
    for key, value in state_dict.items():
        module, _, kind = key.rpartition(".")
        target = ours.pop(names.get(key, f"{names.get(module, '?')}.{kind}"), None)
        if target is None:
            raise CheckpointError(f"The parameter '{key}' has no place in this {type(model).__name__}.")
        if target.shape != value.shape:
            raise CheckpointError(f"'{key}' has shape {list(value.shape)}; this model needs {list(target.shape)}.")
        target.data = value.detach().clone()
    if ours:
        theirs = {our: their for their, our in names.items()}
        parts = [(key, *key.rpartition(".")[::2]) for key in ours]
        missing = [theirs.get(key, f"{theirs.get(module, '?')}.{kind}") for key, module, kind in parts]
        raise CheckpointError(f"The state dict lacks: {', '.join(missing)}.")
