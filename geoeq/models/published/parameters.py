"""Helpers of every ``from_reference``: check the authors' hyperparameters, and assign their parameters to ours.

Networks whose parameters have the authors' shapes are filled by a table of names (``load_parameters``). For the others
the parameters are converted one by one (``NamedParameters``, ``fill_parameters``). Either way a parameter that is
missing, left over or of another shape is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor, nn

from geoeq.errors import CheckpointError, unknown_name

__all__ = ["NamedParameters", "check_hyperparameters", "fill_parameters", "load_parameters"]


def check_hyperparameters(
    network: str, hyperparameters: Collection[str], required: Collection[str], optional: Collection[str]
) -> None:
    """Check that all required hyperparameters are given, and no unknown ones.

    Raises:
        CheckpointError: a hyperparameter is unknown or missing.
    """
    known = {*required, *optional}
    for name in hyperparameters:
        if name not in known:
            raise CheckpointError(f"{network}.from_reference: {unknown_name('hyperparameter', name, known)}")
    for name in sorted(required):
        if name not in hyperparameters:
            raise CheckpointError(f"{network}.from_reference needs the hyperparameter '{name}'.")


def load_parameters(
    model: nn.Module, state_dict: Mapping[str, Tensor], names: Mapping[str, str], buffers: Collection[str] = ()
) -> None:
    """Fill ``model`` with parameters under other names.

    Args:
        model: the network; all of its parameters are filled, and of its buffers only those in ``buffers``.
        state_dict: parameters under the authors' names.
        names: the authors' names of modules, or of single parameters, and ours.
        buffers: our names of the buffers to fill.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    ours: dict[str, Tensor] = dict(model.named_parameters()) | {name: model.get_buffer(name) for name in buffers}
    for key, value in state_dict.items():
        module, _, kind = key.rpartition(".")
        target = ours.pop(names.get(key, f"{names.get(module, '?')}.{kind}"), None)
        if target is None:
            raise CheckpointError(f"The parameter '{key}' has no place in this {type(model).__name__}.")
        _check_shape(key, value, target.shape)
        target.data = value.detach().clone()
    if ours:
        theirs = {our: their for their, our in names.items()}
        parts = [(key, *key.rpartition(".")[::2]) for key in ours]
        missing = [theirs.get(key, f"{theirs.get(module, '?')}.{kind}") for key, module, kind in parts]
        raise CheckpointError(f"The state dict lacks: {', '.join(missing)}.")


class NamedParameters:
    """The authors' state dict, from which parameters are taken one by one.

    Args:
        state_dict: parameters and buffers under the authors' names.
        ignored: whether a name belongs to something that is not needed, such as a constant.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], ignored: Callable[[str, Tensor], bool]) -> None:
        self.values = {key: value.detach() for key, value in state_dict.items() if not ignored(key, value)}
        self.left = set(self.values)

    def take(self, key: str, shape: Sequence[int]) -> Tensor:
        """Return the parameter ``key``.

        Raises:
            CheckpointError: it is missing, or of another shape.
        """
        if key not in self.values:
            raise CheckpointError(f"The state dict lacks: {key}.")
        _check_shape(key, self.values[key], shape)
        self.left.discard(key)
        return self.values[key]

    def finish(self, network: str) -> None:
        """Check that every parameter has been taken.

        Raises:
            CheckpointError: one has not.
        """
        if self.left:
            raise CheckpointError(f"The parameter '{min(self.left)}' has no place in this {network}.")


def fill_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Fill every parameter of ``model`` with the value of its name.

    Raises:
        CheckpointError: a parameter has no value, or one of another shape.
    """
    for name, parameter in model.named_parameters():
        if name not in values:
            raise CheckpointError(f"{type(model).__name__}: nothing in the state dict is for '{name}'.")
        if parameter.shape != values[name].shape:
            shape, needed = list(values[name].shape), list(parameter.shape)
            raise CheckpointError(f"{type(model).__name__}: '{name}' would be {shape}, and is {needed}.")
        parameter.data = values[name].detach().clone().contiguous()


def _check_shape(key: str, value: Tensor, shape: Sequence[int]) -> None:
    if value.shape != tuple(shape):
        raise CheckpointError(f"'{key}' has shape {list(value.shape)}; this model needs {list(shape)}.")
