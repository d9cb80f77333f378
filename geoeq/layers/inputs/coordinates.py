"""Nodes as plain networks take them: invariants and coordinates side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import TensorError
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import NodeEmbedding, NodeInput

__all__ = ["CoordinateEmbedding", "centred_vectors"]


def centred_vectors(data: Data, graph: Graph, velocity: bool) -> Tensor:
    """Positions less the centroid of their graph and, where they are asked for, velocities, as they are.

    Shapes:
        Returns [N, 1, 3] or [N, 2, 3].

    Raises:
        TensorError: velocities are asked for, and the data have none.
    """
    centroids = kernels.segment_mean(graph.positions, graph.batch, graph.num_graphs)
    vectors = [graph.positions - kernels.gather(centroids, graph.batch)]
    if velocity:
        vel = getattr(data, "vel", None)
        if not isinstance(vel, Tensor):
            raise TensorError("velocity=True needs data.vel, which is missing.")
        vectors.append(vel)
    return torch.stack(vectors, dim=1)


class CoordinateEmbedding(nn.Module):
    """``W (r_i - r̄ | v_i) + e(z_i, q_i, ..)``: what a node is, where it is, and how it moves, as C plain numbers.

    **Not equivariant**: the coordinates enter as they are; that the centroid is taken off leaves translations.

    Args:
        width: number C of channels.
        inputs, features_width: invariant inputs, as for ``NodeEmbedding``; may be empty.
        velocity: take ``data.vel`` too.

    Shapes:
        vectors: [N, 1 or 2, 3], those of ``centred_vectors``, turned or not. Returns [N, C].

    Raises:
        InputError: an input is unknown.
        TensorError: an input is missing from the data, or has another width.
    """

    def __init__(
        self,
        width: int,
        inputs: Sequence[NodeInput] = ("element",),
        features_width: int = 0,
        velocity: bool = False,
    ) -> None:
        super().__init__()
        self.velocity = velocity
        self.invariants = NodeEmbedding(width, inputs, features_width) if inputs or features_width else None
        self.coordinates = nn.Linear(6 if velocity else 3, width)

    def forward(self, data: Data, vectors: Tensor) -> Tensor:
        x: Tensor = self.coordinates(vectors.flatten(1))
        return x if self.invariants is None else x + self.invariants(data)
