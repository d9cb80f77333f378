"""Coordinates and invariants as inputs of networks that are not equivariant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import TensorError
from geoeq.geometry.lattice import check_open
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import NodeEmbedding, NodeInput

__all__ = ["CoordinateEmbedding", "centred_vectors"]


def centred_vectors(data: Data, graph: Graph, velocity: bool) -> Tensor:
    """Return positions relative to the centroid of their graph, and optionally velocities.

    In a crystal they would depend on which periodic image of an atom is listed.

    Shapes:
        Returns [N, 1, 3] or [N, 2, 3].

    Raises:
        CellError: a structure is periodic.
        TensorError: velocities are requested, but the data have none.
    """
    check_open(
        graph.pbc,
        "and coordinates relative to the centroid depend on which periodic images of its atoms are listed: use a "
        "network whose messages are made from edge vectors, such as FAENet or PONITA, or set pbc to False.",
    )
    centroids = kernels.segment_mean(graph.positions, graph.batch, graph.num_graphs)
    vectors = [graph.positions - kernels.gather(centroids, graph.batch)]
    if velocity:
        vel = getattr(data, "vel", None)
        if not isinstance(vel, Tensor):
            raise TensorError("velocity=True needs data.vel, which is missing.")
        vectors.append(vel)
    return torch.stack(vectors, dim=1)


class CoordinateEmbedding(nn.Module):
    """Embedding ``W (r_i - r̄ | v_i) + e(z_i, q_i, ...)`` of the coordinates and invariants of a node.

    **Not equivariant**: coordinates enter unrotated. The result is invariant to translations only.

    Args:
        width: number C of channels.
        inputs, features_width: invariant inputs, as for ``NodeEmbedding``; may be empty.
        velocity: whether ``data.vel`` is an input.

    Shapes:
        vectors: [N, 1 or 2, 3], as returned by ``centred_vectors``, rotated or not. Returns [N, C].

    Raises:
        InputError: an input is unknown.
        TensorError: an input is missing from the data, or has the wrong width.
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
