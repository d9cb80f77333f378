"""Plain transformer of atoms, without symmetry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.inputs.coordinates import CoordinateEmbedding, centred_vectors
from geoeq.layers.inputs.embedding import NodeInput
from geoeq.layers.layer import Group
from geoeq.layers.transformer import TransformerLayer, with_loops
from geoeq.models.heads.head import Head
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.model import Model
from geoeq.models.networks.faenet_heads import DecodedVector

__all__ = ["Transformer"]


class Transformer(Model):
    """Attention among the atoms of a graph, each of which is a token with its inputs and coordinates.

    **Not equivariant**: its group is that of translations, "T(3)". Symmetry has to come from outside, from
    ``FrameAveraging`` or (partly) from rotating the training set at random. Coordinates are relative to the centroid of
    the graph, so sums over atoms are not extensive. The network learns distances from coordinates only, unless
    ``num_basis`` is set.

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("energy"), DecodedVector("forces")]``.
        width: number C of channels.
        layers: number of attention layers.
        attention_heads, widening, num_basis, basis_cutoff: see ``TransformerLayer``.
        cutoff: cutoff radius in Å; atoms attend to their neighbours and themselves. None takes ``data.edge_index``, or
            lets all atoms of a graph attend to each other.
        node_inputs: inputs of a node besides its coordinates: "element", "charge", "speed", "features" (``data.x``), or
            none.
        features_width: number of columns of ``data.x``.
        velocity: use ``data.vel`` too.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout). Features are scalars, ``Cx0e``.

    Raises:
        InputError: an input is unknown, or data that it needs are missing, or a number is out of range.
        CellError: a structure is periodic (see ``centred_vectors``).

    Source:
        Vaswani et al., NeurIPS 2017, arXiv:1706.03762. Differs: see ``TransformerLayer``; coordinates are
        the only positional encoding, and there is a final norm.
    """

    group: Group = "T(3)"

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 64,
        layers: int = 4,
        attention_heads: int = 4,
        widening: int = 2,
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_width: int = 0,
        velocity: bool = False,
        num_basis: int = 0,
        basis_cutoff: float | None = None,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width, layers=layers, attention_heads=attention_heads, widening=widening)
        check_sizes(self, least=0, features_width=features_width, num_basis=num_basis)
        check_positive(self, basis_cutoff=basis_cutoff)
        super().__init__(heads, o3.Irreps([(width, "0e")]), cutoff, elements=elements)
        self.velocity = velocity
        self.embedding = CoordinateEmbedding(width, node_inputs, features_width, velocity)
        self.layers = nn.ModuleList(
            TransformerLayer(width, attention_heads, widening, num_basis, cutoff, basis_cutoff) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    @classmethod
    def example(cls) -> Self:
        heads = [GraphScalar("energy"), DecodedVector("positions")]
        return cls(heads, width=8, layers=2, attention_heads=2, cutoff=4.0)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        x: Tensor = self.embedding(data, centred_vectors(data, graph, self.velocity))  # [N, C]
        graph = with_loops(graph)
        for layer in self.layers:
            x = layer(x, graph)
        result: Tensor = self.norm(x)
        return result
