"""Structures as a fixed tuple of tensors: the inputs of exported potentials."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.data.structures import model_inputs
from geoeq.geometry.neighbors import full_edges, radius_edges
from geoeq.pointers import batch_from_ptr, graph_pointers, row_pointers

__all__ = ["DERIVATIVE", "GraphInputs", "as_data", "graph_inputs"]

#: Derivative of the energy by strain, [G, 3, 3] eV: it is defined without a volume.
DERIVATIVE = "strain_derivative"


class GraphInputs(NamedTuple):
    """Structures as tensors with any sizes N, E and G.

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
    """Return the tensors of a Data or Batch; its edges are used if they were built for this cutoff."""
    positions = data.pos.detach().double()
    ptr = graph_pointers(data)
    cells, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
    cells = None if cells is None else cells.detach().double().reshape(-1, 3, 3)
    edge_cutoff = getattr(data, "edge_cutoff", None)
    if cutoff is not None and edge_cutoff is not None and bool((edge_cutoff == cutoff).all()):
        edges, shifts = data.edge_index, getattr(data, "edge_shifts", None)
    else:
        pbc = None if pbc is None else pbc.reshape(-1, 3)
        built = full_edges(ptr) if cutoff is None else radius_edges(positions, ptr, cutoff, cells, pbc)
        edges, shifts = torch.stack([built.sender, built.receiver]), built.shifts
    return GraphInputs(
        positions,
        data.z.long(),
        batch_from_ptr(ptr, len(positions)),
        positions.new_zeros(len(ptr) - 1, 3, 3) if cells is None else cells,
        edges,
        positions.new_zeros(edges.shape[1], 3) if shifts is None else shifts.double(),
    )


def as_data(inputs: GraphInputs) -> Data:
    """Return the Data for a model that is being traced; it holds only the edges of the inputs."""
    data = model_inputs(
        inputs.numbers,
        inputs.positions,
        batch=inputs.batch,
        ptr=row_pointers(inputs.batch, inputs.cells.shape[0]),
        cell=inputs.cells,
    )
    data.edge_index, data.edge_shifts = inputs.edges, inputs.shifts
    data.edge_cutoff = inputs.positions.new_zeros(1)  # during tracing it is taken to be that of the model
    return data
