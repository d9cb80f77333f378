"""Network of vector neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import check_sizes
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import IrrepsEmbedding, NodeInput
from geoeq.layers.vector_neurons import VectorNeuronLayer
from geoeq.models.heads import GraphScalar, Head, NodeVector
from geoeq.models.model import Model

__all__ = ["VectorNeurons"]


class VectorNeurons(Model):
    """Small network with many vector channels, which predicts frames for ``NetworkCanonicalizer``.

    Args:
        heads: heads of the predicted quantities, for example ``[FrameVectors()]``.
        width: number C of scalar and of vector channels.
        layers: number of message-passing layers.
        cutoff: cutoff radius in Å; None takes ``data.edge_index``, or connects all atoms of a graph.
        node_inputs: inputs of a node: "element", "charge", "speed", "features" (``data.x``).
        features_width: number of columns of ``data.x``.
        velocity: use ``data.vel`` as a vector input.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å.

    Raises:
        InputError: a number is out of range.

    Source:
        Deng et al., ICCV 2021, arXiv:2104.12229 (its operations); as a canonicalizer Kaba et al., ICML 2023,
        arXiv:2211.06489. Differs: see ``VectorNeuronLayer``.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 32,
        layers: int = 2,
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_width: int = 0,
        velocity: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width, layers=layers)
        check_sizes(self, least=0, features_width=features_width)
        irreps = o3.Irreps(f"{width}x0e + {width}x1o")
        super().__init__(heads, irreps, cutoff, elements=elements)
        self.embedding = IrrepsEmbedding(irreps, node_inputs, f"{features_width}x0e", velocity)
        self.layers = nn.ModuleList(VectorNeuronLayer(width, cutoff) for _ in range(layers))

    @classmethod
    def example(cls) -> Self:
        return cls([GraphScalar("energy"), NodeVector("forces")], width=8, cutoff=4.0)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        x: Tensor = self.embedding(data)
        for layer in self.layers:
            x = layer(x, graph)
        return x
