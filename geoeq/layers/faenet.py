"""FAENet's layer and its edge features."""

from __future__ import annotations

import dataclasses
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn.functional import silu

from geoeq import kernels
from geoeq.errors import InputError, check_name, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.irreps.norms import EquivariantGraphNorm, EquivariantLayerNorm
from geoeq.layers.layer import EdgeLinear, Layer, RadialFunction, check_width, edge_attributes
from geoeq.layers.products.tensor_paths import depthwise_paths
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["FAENetEdges", "FAENetLayer", "Message", "NodeNorm"]

Message = Literal["simple", "base", "updownscale", "updownscale_base", "updown_local_env"]
NodeNorm = Literal["graph", "batch", "layer", "none"]


class FAENetEdges(nn.Module):
    """Edge features ``SiLU(W_1 r_ij | W_2 g(|r_ij|))`` of edge vectors and distances.

    The vectors enter unrotated: the result is only invariant to translations.

    Args:
        width: number F of edge features.
        basis: radial basis g.
        second: whether a second linear map with SiLU follows.

    Shapes:
        Returns [E, F].

    Raises:
        InputError: a number is out of range.
    """

    def __init__(self, width: int, basis: RadialFunction, second: bool = False) -> None:
        super().__init__()
        check_sizes(self, least=2, width=width)  # half of them see vectors, half distances
        self.basis = basis
        self.vector = nn.Linear(3, width // 2)
        self.distance = nn.Linear(basis.width, width - width // 2)
        self.second = nn.Linear(width, width) if second else None

    def forward(self, graph: Graph) -> Tensor:
        parts = [self.vector(graph.vectors), self.distance(self.basis(graph.lengths))]
        edges = silu(torch.cat(parts, dim=-1))
        return edges if self.second is None else silu(self.second(edges))


class FAENetLayer(Layer):
    """Update node features by the features of the neighbours, multiplied by filters of the edges.

    ``x_i <- x_i + W_u Norm(Σ_j f_ij ⊙ W_d x_j)`` with the filter ``f_ij = W (e_ij | x_j | x_i)``, and SiLU after each W
    and after the norm. The output has the symmetry of the edge attributes e_ij.

    Args:
        width: number C of channels.
        edge_width: number F of edge attributes in ``graph.edge_attr``, and of filters.
        message: "updownscale_base": as above. "updownscale": filters do not depend on the nodes. "base": no W_d, and C
            filters. "simple": no W_d, and e_ij itself is the filter, so F must be C. "updown_local_env": filters do not
            depend on the nodes, W_u is applied to ``(Norm(...) | Σ_j e_ij)``, and W and W_u have no SiLU.
        norm: "layer": of each atom separately. "graph": over the atoms of a graph. "batch": over the whole batch, as
            published. "none". With "graph" atoms affect each other at any distance, so that energies are not
            extensive, with "batch" also across graphs. Both enlarge tiny differences between the atoms of a crystal
            (see ``EquivariantGraphNorm``).
        second: whether a second linear map with SiLU ends the layer ("complex" in the published code).
        cutoff: radius in Å at which messages vanish smoothly. None: as published.

    Shapes:
        x: [N, C], irreps ``Cx0e``. Returns the same.

    Raises:
        InputError: an option is not one of those above, or "simple" is used with F other than C, or a number is out of
            range.
        TensorError: x or the edge attributes of the graph have the wrong width.

    Source:
        Duval et al. 2023, arXiv:2305.05577, section 5, and the published code. Differs: the norm is of each
        atom, not over the batch; with a cutoff, an envelope.
    """

    def __init__(
        self,
        width: int,
        edge_width: int,
        message: Message = "updownscale_base",
        norm: NodeNorm = "layer",
        second: bool = False,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, width=width, edge_width=edge_width)
        check_positive(self, cutoff=cutoff)
        check_name("message", message, get_args(Message))
        check_name("norm", norm, get_args(NodeNorm))
        if message == "simple" and edge_width != width:
            raise InputError(f"FAENetLayer 'simple' needs as many edge attributes as channels: {edge_width}, {width}.")
        scaled, self.local = message.startswith("updown"), message == "updown_local_env"
        filters = edge_width if scaled else width
        self.width, self.edge_width, self.whole_batch = width, edge_width, norm == "batch"
        self.irreps_in = self.irreps_out = o3.Irreps([(width, "0e")])
        self.paths, irreps = depthwise_paths(o3.Irreps([(filters, "0e")]), o3.Irreps("0e"), [o3.Irrep("0e")])
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        self.filter: EdgeLinear | nn.Linear | None = None
        if message.endswith("base"):
            self.filter = EdgeLinear(width, edge_width, filters)
        elif scaled:
            self.filter = nn.Linear(edge_width, filters)
        self.down = nn.Linear(width, filters) if scaled else None
        self.layer_norm = EquivariantLayerNorm(irreps) if norm == "layer" else None
        self.graph_norm = EquivariantGraphNorm(irreps) if norm in ("graph", "batch") else None
        self.up = nn.Linear(2 * filters if self.local else filters, width)
        self.second = nn.Linear(width, width) if second else None

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, edge_width=4, second=True, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.width, "FAENetLayer")
        e = edge_attributes(graph, self.edge_width, "FAENetLayer").to(graph.lengths.dtype)  # [E, F]
        envelope = graph.harmonics[:, :1] if self.envelope is None else self.envelope(graph.lengths)  # [E, 1]

        f = self._filters(x, e, graph).to(e.dtype)  # f_ij = W (e_ij | x_j | x_i), [E, F]
        down = (x if self.down is None else silu(self.down(x))).to(e.dtype)  # W_d x_j, [N, F]
        m = kernels.tensor_product_conv(down, envelope, f, graph, self.paths)  # Σ_j f_ij ⊙ W_d x_j
        m = self._normalize(m, graph)
        if self.local:
            update = self.up(torch.cat([m, kernels.weighted_sum(e, envelope, graph)], dim=-1))
        else:
            update = silu(self.up(m))
        if self.second is not None:
            update = silu(self.second(update))
        result: Tensor = x + update
        return result

    def _filters(self, x: Tensor, e: Tensor, graph: Graph) -> Tensor:
        if isinstance(self.filter, EdgeLinear):
            return silu(self.filter(x, e, graph))
        if self.filter is None:
            return e
        return self.filter(e) if self.local else silu(self.filter(e))

    def _normalize(self, m: Tensor, graph: Graph) -> Tensor:
        if self.layer_norm is not None:
            return silu(self.layer_norm(m))
        if self.graph_norm is None:
            return m
        if self.whole_batch:
            graph = dataclasses.replace(graph, batch=torch.zeros_like(graph.batch), num_graphs=1)
        return silu(self.graph_norm(m, graph))
