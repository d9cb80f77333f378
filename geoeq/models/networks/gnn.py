"""Plain message passing on coordinates, a baseline without symmetry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import check_sizes
from geoeq.graph import Graph
from geoeq.layers.gnn import GNNLayer
from geoeq.layers.inputs.coordinates import CoordinateEmbedding, centred_vectors
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, NodeInput
from geoeq.layers.layer import Group
from geoeq.models.heads.head import Head
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.model import Model
from geoeq.models.networks.faenet_heads import DecodedVector

__all__ = ["GNN"]


class GNN(Model):
    """Plain graph network on coordinates: the baseline that equivariant networks are compared with.

    **Not equivariant**: its group is that of translations, "T(3)". Symmetry has to come from outside, from
    ``FrameAveraging`` or (partly) from rotating the training set at random. Coordinates are relative to the centroid of
    the graph, so every atom affects every other one at any distance, whatever the cutoff, and sums over atoms are not
    extensive.

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("energy"), DecodedVector("forces")]``.
        width: number C of channels.
        layers: number of message-passing layers.
        cutoff: cutoff radius in Å; None takes ``data.edge_index``, or connects all atoms of a graph.
        node_inputs: inputs of a node besides its coordinates: "element", "charge", "speed", "features" (``data.x``), or
            none.
        features_width: number of columns of ``data.x``.
        edge_inputs: inputs of an edge: "square_distance", "charge_product", "edge_attr", "bessel" (needs a cutoff).
        edge_attr_width: number of columns of ``data.edge_attr``.
        num_basis: number of Bessel functions.
        velocity: use ``data.vel`` too.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout). Features are scalars, ``Cx0e``.

    Raises:
        InputError: an input is unknown, or data that it needs are missing, or a number is out of range.
        CellError: a structure is periodic (see ``centred_vectors``).

    Source:
        The baseline "GNN" of Satorras et al., ICML 2021, arXiv:2102.09844, section 5.1. Differs: positions are relative
        to their centroid; edges have the squared distance too, as in the network of Puny et al., ICLR 2022,
        arXiv:2110.03336, unless ``edge_inputs`` says otherwise; elements are embedded if there are any.
    """

    group: Group = "T(3)"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "nbody": {
            "width": 64,
            "layers": 4,
            "node_inputs": [],
            "edge_inputs": ["charge_product"],
            "velocity": True,
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 64,
        layers: int = 4,
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_width: int = 0,
        edge_inputs: Sequence[EdgeInput] = ("square_distance",),
        edge_attr_width: int = 0,
        num_basis: int = 8,
        velocity: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width, layers=layers, num_basis=num_basis)
        check_sizes(self, least=0, features_width=features_width, edge_attr_width=edge_attr_width)
        super().__init__(heads, self.features_irreps(width), cutoff, elements=elements)
        self.velocity = velocity
        self.embedding = CoordinateEmbedding(width, node_inputs, features_width, velocity)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, num_basis, cutoff)
        self.layers = nn.ModuleList(GNNLayer(width, self.edge_embedding.width, cutoff) for _ in range(layers))

    @staticmethod
    def features_irreps(width: int) -> o3.Irreps:
        """Return the irreps of the features of a network with C channels."""
        return o3.Irreps([(width, "0e")])

    @classmethod
    def example(cls) -> Self:
        return cls([GraphScalar("energy"), DecodedVector("positions")], width=8, layers=2, cutoff=4.0)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        graph = dataclasses.replace(graph, edge_attr=self.edge_embedding(data, graph))
        x: Tensor = self.embedding(data, centred_vectors(data, graph, self.velocity))  # [N, C]
        for layer in self.layers:
            x = layer(x, graph)
        return x
