"""Element references, shift and scale of a target, from the training set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import TensorError
from geoeq.fields import NUM_ELEMENTS
from geoeq.models.training_set import LeastSquares, TrainingSet

__all__ = ["References", "composition", "fit_references"]


@dataclass(frozen=True)
class References:
    """What a head takes from the training set, in float64.

    Attributes:
        references: [119] a number for each element, 0 for those not seen.
        shift: what is added to every graph.
        spread: standard deviation of what is left.
        mean_atoms: mean number of atoms in a graph.
    """

    references: Tensor
    shift: Tensor
    spread: float
    mean_atoms: float


def composition(numbers: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    """How many atoms of each element a graph has.

    Shapes:
        numbers, batch: [N] int64. Returns [G, 119] float64.
    """
    counts = torch.bincount(batch * NUM_ELEMENTS + numbers, minlength=num_graphs * NUM_ELEMENTS)
    return counts.view(num_graphs, NUM_ELEMENTS).double()


def fit_references(data: TrainingSet, name: str, per_element: bool) -> References:
    """Least-squares element references (or the mean) of a graph-level target, and the spread around them.

    Args:
        data: the training set, as one Batch or several, with the target ``name`` [G].
        name: of the target.
        per_element: fit one number for each element; else one mean for all graphs.

    Raises:
        TensorError: the target is missing or not finite.
    """
    fit = LeastSquares(NUM_ELEMENTS + 1)  # of which the last column stands for no element
    atoms, largest, elements = 0, 0.0, False
    for part in [data] if isinstance(data, Data) else data:
        target = getattr(part, name, None)
        if not isinstance(target, Tensor) or target.numel() == 0:
            raise TensorError(f"The training set has no target '{name}' to fit references to.")
        target = target.detach().reshape(-1).double().cpu()
        if not target.isfinite().all():
            where = int((~target.isfinite()).nonzero()[0])
            graph = (
                f"structure {int(part.structure_id[where])}"
                if "structure_id" in part
                else f"training graph {fit.count + where}"
            )
            raise TensorError(f"The target '{name}' of {graph} is not finite.")
        counts = target.new_zeros(len(target), NUM_ELEMENTS + 1)
        numbers = getattr(part, "z", None)
        elements = per_element and isinstance(numbers, Tensor)
        if per_element and isinstance(numbers, Tensor):
            batch = part.batch if isinstance(getattr(part, "batch", None), Tensor) else torch.zeros_like(numbers)
            counts[:, :-1] = composition(numbers, batch, len(target)).cpu()
        else:
            counts[:, -1] = 1.0
        fit.add(counts, target)
        atoms += int(part.num_nodes or 0)
        largest = max(largest, float(target.abs().max()))
    if fit.count == 0:
        raise TensorError(f"The training set has no structure to fit references of '{name}' to.")
    solution, spread = fit.solve()
    references = solution[:-1] if elements else torch.zeros(NUM_ELEMENTS, dtype=torch.float64)
    shift = torch.tensor(0.0 if elements else fit.mean, dtype=torch.float64)
    scale = spread if spread > 1e-12 * max(largest, 1e-300) else 1.0
    return References(references, shift, scale, atoms / fit.count)
