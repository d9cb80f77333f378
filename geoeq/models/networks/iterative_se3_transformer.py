"""Iterative SE(3)-Transformer: blocks of attention that move the nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import check_positive, check_sizes
from geoeq.graph import Graph, displace
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, IrrepsEmbedding, NodeInput
from geoeq.layers.irreps.layout import sphere_irreps
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis
from geoeq.layers.se3_transformer.se3_block import SE3Block
from geoeq.layers.se3_transformer.se3_messages import Activation
from geoeq.layers.se3_transformer.se3_norm import NormKind
from geoeq.models.heads import GraphScalar, Head, NodeVector
from geoeq.models.model import Model
from geoeq.models.networks.se3_transformer import edge_inputs_with_basis, input_irreps

__all__ = ["IterativeSE3Transformer"]


class IterativeSE3Transformer(Model):
    """Sequence of SE(3)-Transformers, each of which acts on the positions moved by those before it.

    After each block ``r_i <- r_i + Σ_c w_c x_ic`` with its vectors x; distances and harmonics are recomputed, with
    their derivatives. Edges stay those of the input. Features are passed from block to block.

    Args:
        heads: heads of the predicted quantities; ``Positions`` returns the final positions of the nodes.
        blocks: number of blocks.
        layers: number of attention layers of each block.
        width: number C of channels of each degree.
        lmax: highest degree of the features, at least 1.
        cutoff: cutoff radius in Å; messages decay smoothly to zero where an edge *of the input* reaches it. None takes
            ``data.edge_index``, or connects all atoms of a graph.
        attention_heads, channels_div, norm, hidden, radial_norm, activation: see ``SE3Transformer``.
        node_inputs, features_irreps, velocity, elements: see ``SE3Transformer``.
        edge_inputs, edge_attr_width, num_basis, basis_cutoff, distance: see ``SE3Transformer``.

    Shapes:
        Positions in Å (or dimensionless throughout), velocities in Å per unit of time. Features are ``2 C``
        scalars and 1 + C vectors, the first of which is the displacement.

    Raises:
        InputError: lmax is 0, so there are no vectors, or there is no block, or a number is out of range.

    Source:
        Fuchs et al. 2021, arXiv:2102.13419, section 3. Differs: all vectors move a node, with learned weights that
        start small, instead of the first vector; every block ends with a convolution, not only the last; edges stay
        those of the input; radial networks, nonlinearity and cutoff as in ``SE3Transformer``.
    """

    group = "SE(3)"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "optimization": {
            "blocks": 3,
            "layers": 4,
            "width": 4,
            "lmax": 2,
            "attention_heads": 1,
            "channels_div": 1,
            "node_inputs": ["features"],
            "features_irreps": "1x0e",
        },
        "nbody": {
            "blocks": 2,
            "layers": 2,
            "width": 8,
            "lmax": 2,
            "attention_heads": 2,
            "channels_div": 2,
            "node_inputs": ["charge"],
            "edge_inputs": ["charge_product"],
            "velocity": True,
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        blocks: int = 3,
        layers: int = 4,
        width: int = 16,
        lmax: int = 2,
        attention_heads: int = 4,
        channels_div: int = 2,
        norm: NormKind | Literal["none"] = "bounded",
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        num_basis: int = 16,
        basis_cutoff: float | None = None,
        distance: bool | None = None,
        hidden: int = 32,
        radial_norm: bool = True,
        activation: Activation = "silu",
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, blocks=blocks, layers=layers, width=width, lmax=lmax, attention_heads=attention_heads)
        check_sizes(self, channels_div=channels_div, num_basis=num_basis, hidden=hidden)
        check_sizes(self, least=0, edge_attr_width=edge_attr_width)
        check_positive(self, cutoff=cutoff, basis_cutoff=basis_cutoff)
        scalars = 2 * width
        irreps = o3.Irreps(f"{scalars}x0e + {1 + width}x1o")
        edge_inputs, distance = edge_inputs_with_basis(edge_inputs, basis_cutoff or cutoff, distance)
        inputs, hidden_irreps = input_irreps(width, lmax, features_irreps, velocity), sphere_irreps(lmax, width)
        last = o3.Irreps(f"{scalars}x0e + {width}x1o")
        edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, num_basis, basis_cutoff or cutoff)
        attention_blocks = [
            SE3Block(
                inputs if n == 0 else hidden_irreps,
                hidden_irreps,
                last if n == blocks - 1 else hidden_irreps,
                layers,
                edge_embedding.width,
                heads=attention_heads,
                channels_div=channels_div,
                norm=norm,
                distance=distance,
                hidden=hidden,
                radial_norm=radial_norm,
                activation=activation,
                cutoff=cutoff,
            )
            for n in range(blocks)
        ]
        super().__init__(heads, irreps, cutoff, lmax=max(block.lmax for block in attention_blocks), elements=elements)
        self.scalars, self.width = scalars, width
        self.embedding = IrrepsEmbedding(inputs, node_inputs, features_irreps, velocity, self.group)
        self.edge_embedding = edge_embedding
        self.blocks = nn.ModuleList(attention_blocks)
        self.moves = nn.ParameterList(torch.randn(width) * 1e-2 / width**0.5 for _ in attention_blocks)

    @classmethod
    def example(cls) -> Self:
        heads = [GraphScalar("energy"), NodeVector("forces")]
        return cls(heads, 2, 1, 4, lmax=1, attention_heads=2, channels_div=1, cutoff=4.0, num_basis=4, hidden=6)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        x = self.embedding(data)
        shift, moved = torch.zeros_like(graph.positions), graph
        envelope: Tensor | None = None
        for n, (block, move) in enumerate(zip(self.blocks, self.moves, strict=True)):
            moved = dataclasses.replace(moved, edge_attr=self.edge_embedding(data, moved))
            # The edges, and so the envelope, are those of the input positions, wherever the nodes are now.
            basis = EdgeBasis(moved, self.cutoff, envelope)
            envelope = basis.envelope
            x = block(x, moved, basis)  # [N, block.irreps_out.dim]
            start = self.width if n < len(self.blocks) - 1 else self.scalars
            vectors = x[:, start : start + 3 * self.width]
            shift = shift + move @ vectors.reshape(-1, self.width, 3)  # [N, 3]
            if n < len(self.blocks) - 1:
                moved = displace(graph, shift)
        return torch.cat([x[:, : self.scalars], shift, x[:, self.scalars :]], dim=-1)
