"""Loss functions: the error of each target in units of its scale, so that no setting depends on a unit."""

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
    """Return the sum of the lengths of the rows [M, ..] of the error (``reduction`` is "sum"); a number is a row."""
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
    """Weighted sum over the targets of their mean errors, each divided by its scale.

    The scale is the error of the best baseline on the training set, in the norm of the loss (``Baseline.scales``): a
    loss of 1 is as good as that baseline (mse, mae, length) for any target in any unit, and outliers have the same
    influence on the scale as on the loss.

    Args:
        settings: section ``loss`` of the recipe.
        scales: target -> scale, in the internal unit.
        mean_atoms: mean number of atoms per graph of the training set, which divides the scales of errors per atom.
    """

    def __init__(self, settings: LossSettings, scales: Mapping[str, float], mean_atoms: float = 1.0) -> None:
        self._function, self._by_row = _FUNCTIONS[settings.name], settings.name == "length"
        self._weights = {name: settings.weights.get(name, 1.0) for name in scales}
        self._per_atom = {name for name in scales if settings.per_atom and field(name).extensive}
        self._scales = {name: scale / (mean_atoms if name in self._per_atom else 1) for name, scale in scales.items()}

    def __call__(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], atoms: Tensor) -> Tensor:
        """Return the loss, a scalar; arguments and exceptions are those of ``sums``."""
        return torch.stack(
            [total / max(count, 1) for total, count in self.sums(outputs, targets, atoms).values()]
        ).sum()

    def sums(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], atoms: Tensor
    ) -> dict[str, tuple[Tensor, int]]:
        """Return target -> weighted sum and number of its errors; the loss is the sum over the targets of their means.

        Args:
            outputs: outputs of the model.
            targets: true values in the same units.
            atoms: number of atoms of each graph, [G].

        Raises:
            TensorError: an output is missing, or its shape differs from its target.
        """
        sums = {}
        for name, scale in self._scales.items():
            if name not in outputs:
                raise TensorError(
                    f"The model predicts no '{name}' for these structures (a stress needs periodic structures)."
                )
            output, target = outputs[name], targets[name]
            if output.shape != target.shape:
                raise TensorError(
                    f"The model predicts '{name}' of shape {list(output.shape)}, but its target has shape "
                    f"{list(target.shape)}: its head has another level (graph, node) or other irreps than the field."
                )
            sizes = scale * atoms if name in self._per_atom else scale
            error = self._function(output / sizes, (target / sizes).to(output.dtype), reduction="sum")
            sums[name] = (self._weights[name] * error, len(target) if self._by_row else target.numel())
        if not sums:
            raise TensorError("A loss needs at least one target.")
        return sums
