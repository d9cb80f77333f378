"""Element references, shift and scale of a target, from the training set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import TensorError
from geoeq.fields import NUM_ELEMENTS

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


def fit_references(data: Data, name: str, per_element: bool) -> References:
    """Least-squares element references (or the mean) of a graph-level target, and the spread around them.

    Args:
        data: the training set as one Batch, with the target ``name`` [G].
        name: of the target.
        per_element: fit one number for each element; else one mean for all graphs.

    Raises:
        TensorError: the target is missing or not finite.
    """
    target = getattr(data, name, None)
    if not isinstance(target, Tensor) or target.numel() == 0:
        raise TensorError(f"The training set has no target '{name}' to fit references to.")
    target = target.detach().reshape(-1).double()
    if not target.isfinite().all():
        where = int((~target.isfinite()).nonzero()[0])
        raise TensorError(f"The target '{name}' of training graph {where} is not finite.")
    batch = data.batch if isinstance(getattr(data, "batch", None), Tensor) else None
    numbers = getattr(data, "z", None)
    num_nodes = int(data.num_nodes or 0)
    references = torch.zeros(NUM_ELEMENTS, dtype=torch.float64)
    shift = torch.zeros((), dtype=torch.float64)
    if per_element and isinstance(numbers, Tensor):
        counts = composition(numbers, torch.zeros_like(numbers) if batch is None else batch, len(target))
        seen = counts.sum(0) > 0
        solution = torch.linalg.lstsq(counts[:, seen].cpu(), target.cpu().unsqueeze(-1), driver="gelsd").solution
        references[seen.cpu()] = solution.squeeze(-1)
        rest = target.cpu() - counts.cpu() @ references
    else:
        shift = target.mean().cpu()
        rest = target.cpu() - shift
    spread = float(rest.square().mean().sqrt())
    scale = spread if spread > 1e-12 * float(target.abs().max().clamp(min=1e-300)) else 1.0
    return References(references, shift, scale, num_nodes / len(target))
