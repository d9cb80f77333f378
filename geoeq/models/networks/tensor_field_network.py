"""Tensor field network, with a choice of tensor products."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, check_positive, check_sizes
from geoeq.graph import Graph, with_frames
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, IrrepsEmbedding, NodeInput
from geoeq.layers.irreps.layout import sphere_irreps
from geoeq.layers.layer import Group
from geoeq.layers.products import Product
from geoeq.layers.products.tensor_convolution import TensorConvolution
from geoeq.models.heads import GraphScalar, Head, NodeVector
from geoeq.models.model import Model

__all__ = ["TensorFieldNetwork"]


class TensorFieldNetwork(Model):
    """Convolutions with spherical harmonics and radial networks, and gates, with C channels of every degree throughout.

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("energy")]``.
        width: number C of channels of each degree.
        layers: number of convolution layers.
        lmax: highest degree of the features.
        product: product of features and harmonics: "clebsch_gordan", "gaunt_fourier", "gaunt_grid" or "edge_frame"; see
            ``TensorConvolution``.
        lmax_edge: highest degree of the harmonics, by default lmax; not used by "edge_frame".
        group: "SE(3)" adds the paths of odd l1 + l2 + l3, such as the cross product ("clebsch_gordan", "edge_frame").
        hidden: widths of the hidden layers of the radial networks.
        neighbors: typical number of neighbours of a node.
        cutoff: cutoff radius in Å; None takes ``data.edge_index``, or connects all atoms of a graph.
        basis_cutoff: radius at which the Bessel functions end, in Å; by default the cutoff.
        num_basis: number of Bessel functions.
        node_inputs: inputs of a node: "element", "charge", "speed", "features" (``data.x``).
        features_irreps: irreps of ``data.x``, if "features" is among the inputs.
        velocity: use ``data.vel`` as a vector input.
        edge_inputs: inputs of the radial networks: "bessel" (a Bessel basis of the distance), "square_distance",
            "charge_product", "edge_attr".
        edge_attr_width: number of columns of ``data.edge_attr``.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout), velocities in Å per unit of time.

    Raises:
        InputError: there are no edge inputs, or the product is unknown or does not have the given options, or a number
            is out of range.

    Source:
        Thomas et al. 2018, arXiv:1802.08219. Differs: gates instead of norm nonlinearities, self-interaction of each
        node, and Bessel functions with an envelope, as in Batzner et al. 2022, arXiv:2101.03164 (NequIP); a layer adds
        to its input; parities are those of harmonics; layer normalisation in the radial networks; all degrees have the
        same number of channels.
    """

    #: "rmd17": sizes of NequIP on rMD17 (Batzner et al. 2022, Methods); NequIP has features of the other parity too.
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "rmd17": {"width": 64, "layers": 5, "lmax": 3, "cutoff": 4.0, "num_basis": 8, "hidden": [64, 64, 64]},
    }

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 64,
        layers: int = 4,
        lmax: int = 2,
        product: Product = "clebsch_gordan",
        lmax_edge: int | None = None,
        group: Group = "E(3)",
        hidden: Sequence[int] = (64, 64),
        neighbors: float = 16.0,
        cutoff: float | None = None,
        basis_cutoff: float | None = None,
        num_basis: int = 8,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        edge_inputs: Sequence[EdgeInput] = ("bessel",),
        edge_attr_width: int = 0,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width, layers=layers, hidden=hidden, num_basis=num_basis)
        check_sizes(self, least=0, lmax=lmax, lmax_edge=lmax_edge, edge_attr_width=edge_attr_width)
        check_positive(self, neighbors=neighbors, basis_cutoff=basis_cutoff)
        irreps = sphere_irreps(lmax, width)
        in_frames = product == "edge_frame"  # needs no harmonics
        lmax_graph = 0 if in_frames else lmax if lmax_edge is None else lmax_edge
        super().__init__(heads, irreps, cutoff, lmax_graph, elements)
        self.group, self.lmax_frames = group, lmax if in_frames else None
        self.embedding = IrrepsEmbedding(irreps, node_inputs, features_irreps, velocity)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, num_basis, basis_cutoff or cutoff)
        if self.edge_embedding.width == 0:
            raise InputError("edge_inputs is empty: the radial networks need at least one input, such as 'bessel'.")
        self.layers = nn.ModuleList(
            TensorConvolution(
                width,
                lmax,
                product,
                edge_width=self.edge_embedding.width,
                hidden=hidden,
                lmax_edge=lmax_edge,
                group=group,
                neighbors=neighbors,
                cutoff=cutoff,
            )
            for _ in range(layers)
        )

    @classmethod
    def example(cls) -> Self:
        heads: list[Head] = [GraphScalar("energy"), NodeVector("forces")]
        return cls(
            heads, width=4, layers=2, lmax=2, product="gaunt_grid", hidden=[8], neighbors=4.0, cutoff=4.0, num_basis=4
        )

    def encode(self, data: Data, graph: Graph) -> Tensor:
        x: Tensor = self.embedding(data)  # [N, C (L + 1)²]
        graph = dataclasses.replace(graph, edge_attr=self.edge_embedding(data, graph))
        if self.lmax_frames is not None:
            graph = with_frames(graph, self.lmax_frames)
        for layer in self.layers:
            x = x + layer(x, graph)
        return x
