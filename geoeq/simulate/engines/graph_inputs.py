"""The tensors that an exported potential takes, and what it gives, in one fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.geometry.neighbors import full_edges, radius_edges
from geoeq.models.wrappers.forces import has_volume
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["DERIVATIVE", "GraphInputs", "graph_inputs", "with_stress"]

#: The derivative of the energy by strain, [G, 3, 3] eV: it exists without a volume.
DERIVATIVE = "strain_derivative"


class GraphInputs(NamedTuple):
    """Structures as tensors, whose sizes N, E and G may be any.

    Shapes:
        positions: [N, 3] float64 Å. numbers: [N] int64. batch: [N] int64, the structure of each atom, sorted.
        cells: [G, 3, 3] float64 Å, rows are the vectors; zeros where nothing is periodic.
        edges: [2, E] int64, senders over receivers, sorted by receiver, all that are shorter than the cutoff.
        shifts: [E, 3] float64 whole numbers: an edge is r_sender - r_receiver + shift @ cell.
    """

    positions: Tensor
    numbers: Tensor
    batch: Tensor
    cells: Tensor
    edges: Tensor
    shifts: Tensor


def graph_inputs(data: Data, cutoff: float | None) -> GraphInputs:
    """Those of a Data or Batch; its edges are taken where they are for this cutoff, else they are found."""
    positions = data.pos.detach().double()
    ptr = graph_pointers(data)
    cells, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
    cells = None if cells is None else cells.detach().double().reshape(-1, 3, 3)
    made_for = getattr(data, "edge_cutoff", None)
    if cutoff is not None and made_for is not None and bool((made_for == cutoff).all()):
        edges, shifts = data.edge_index, getattr(data, "edge_shifts", None)
    else:
        pbc = None if pbc is None else pbc.reshape(-1, 3)
        found = full_edges(ptr) if cutoff is None else radius_edges(positions, ptr, cutoff, cells, pbc)
        edges, shifts = torch.stack([found.sender, found.receiver]), found.shifts
    return GraphInputs(
        positions,
        data.z.long(),
        batch_from_ptr(ptr, len(positions)),
        positions.new_zeros(len(ptr) - 1, 3, 3) if cells is None else cells,
        edges,
        positions.new_zeros(edges.shape[1], 3) if shifts is None else shifts.double(),
    )


def with_stress(names: Sequence[str], outputs: Sequence[Tensor], data: Data) -> dict[str, Tensor]:
    """Outputs by name, with a stress where all structures have a volume, as ``geoeq.models.Forces`` gives it."""
    named = dict(zip(names, outputs, strict=True))
    derivative = named.pop(DERIVATIVE, None)
    if derivative is not None and bool(has_volume(data).all()):
        volume = torch.linalg.det(data.cell.reshape(-1, 3, 3)).abs()
        named["stress"] = derivative / volume[:, None, None]
    return named
