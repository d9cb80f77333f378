"""What is minimised: the error of each target in units of its scale, so that no setting depends on a unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from geoeq.errors import TensorError
from geoeq.fields import field
from geoeq.training.recipe import LossSettings

__all__ = ["Loss"]


def _length(output: Tensor, target: Tensor, reduction: str) -> Tensor:
    """The sum (as ``reduction`` asks) of the lengths of the rows [M, ..] of the error; numbers [M] are rows of one."""
    difference = (output - target).reshape(len(output), -1)
    lengths: Tensor = torch.linalg.vector_norm(difference, dim=-1)
    return lengths.sum()


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
    "length": _length,
}


class Loss:
    """Weighted sum over the targets of the mean error, each divided by its scale.

    The scale is the error of the best baseline on the training set, in the norm of the loss (``Baseline.scales``): a
    loss of 1 is as good as that baseline (mse, mae, length), for any target in any unit, and what is far off weighs in
    the scale as it weighs in the loss.

    Args:
        settings: the function, and the weights of the targets.
        scales: target -> scale, in the unit inside.
        mean_atoms: of a graph of the training set; of errors that are counted by atom, scales are divided by it.
    """

    def __init__(self, settings: LossSettings, scales: Mapping[str, float], mean_atoms: float = 1.0) -> None:
        self._function, self._of_rows = _FUNCTIONS[settings.name], settings.name == "length"
        self._weights = {name: settings.weights.get(name, 1.0) for name in scales}
        self._per_atom = {name for name in scales if settings.per_atom and field(name).extensive}
        self._scales = {name: scale / (mean_atoms if name in self._per_atom else 1) for name, scale in scales.items()}

    def __call__(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], atoms: Tensor) -> Tensor:
        """The loss, a scalar; arguments and errors are those of ``sums``."""
        return torch.stack(
            [total / max(count, 1) for total, count in self.sums(outputs, targets, atoms).values()]
        ).sum()

    def sums(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], atoms: Tensor
    ) -> dict[str, tuple[Tensor, int]]:
        """Target -> weighted sum of its errors, and of how many; the sum over the targets of their means is the loss.

        Args:
            outputs: of the model.
            targets: in the same units.
            atoms: of each graph, [G].

        Raises:
            TensorError: an output is missing, or not of the shape of its target.
        """
        found = {}
        for name, scale in self._scales.items():
            if name not in outputs:
                raise TensorError(
                    f"The model gives no '{name}' for these structures (a stress is that of periodic ones alone)."
                )
            output, target = outputs[name], targets[name]
            if output.shape != target.shape:
                raise TensorError(
                    f"The model gives '{name}' of shape {list(output.shape)}, and targets are {list(target.shape)}: "
                    "its head is at another level (graph, node) or of other irreps than the field."
                )
            sizes = scale * atoms if name in self._per_atom else scale
            error = self._function(output / sizes, (target / sizes).to(output.dtype), reduction="sum")
            found[name] = (self._weights[name] * error, len(target) if self._of_rows else target.numel())
        if not found:
            raise TensorError("A loss needs at least one target.")
        return found
