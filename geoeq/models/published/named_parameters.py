"""The authors' parameters, taken one by one: none may be missing, left over, or of another shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from geoeq.errors import CheckpointError

__all__ = ["NamedParameters", "fill_parameters"]


class NamedParameters:
    """A state dict from which a ``from_reference`` takes what it knows.

    Args:
        state_dict: parameters and buffers under the authors' names.
        ignored: whether a name is of something that needs no place, such as a constant.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], ignored: Callable[[str, Tensor], bool]) -> None:
        self.values = {key: value.detach() for key, value in state_dict.items() if not ignored(key, value)}
        self.left = set(self.values)

    def take(self, key: str, shape: Sequence[int]) -> Tensor:
        """The parameter ``key``.

        Raises:
            CheckpointError: it is missing, or of another shape.
        """
        if key not in self.values:
            raise CheckpointError(f"The state dict lacks: {key}.")
        value = self.values[key]
        if value.shape != tuple(shape):
            raise CheckpointError(f"'{key}' has shape {list(value.shape)}; this model needs {list(shape)}.")
        self.left.discard(key)
        return value

    def finish(self, network: str) -> None:
        """Nothing, where all has been taken.

        Raises:
            CheckpointError: something has not.
        """
        if self.left:
            raise CheckpointError(f"The parameter '{min(self.left)}' has no place in this {network}.")


def fill_parameters(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Fill every parameter of ``model`` with the value of its name.

    Raises:
        CheckpointError: one has no value, or one of another shape.
    """
    for name, parameter in model.named_parameters():
        if name not in values:
            raise CheckpointError(f"{type(model).__name__}: nothing in the state dict is for '{name}'.")
        if parameter.shape != values[name].shape:
            found, needed = list(values[name].shape), list(parameter.shape)
            raise CheckpointError(f"{type(model).__name__}: '{name}' would be {found}, and is {needed}.")
        parameter.data = values[name].detach().clone().contiguous()
