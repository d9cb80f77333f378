"""A stack of SE(3)-Transformer layers that ends with a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import InputError, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.layer import Layer
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis
from geoeq.layers.se3_transformer.se3_attention import SE3Attention
from geoeq.layers.se3_transformer.se3_convolution import SE3Convolution
from geoeq.layers.se3_transformer.se3_messages import Activation, RadialSharing
from geoeq.layers.se3_transformer.se3_norm import NormKind, SE3Norm

__all__ = ["SE3Block"]


class SE3Block(Layer):
    """Several layers of attention and nonlinearity, then a convolution.

    Args:
        irreps_in, irreps_hidden, irreps_out: irreps of the features, each degree once. Parities have no meaning.
        layers: number of attention layers.
        edge_width: number of columns of ``graph.edge_attr``, inputs of the radial networks.
        norm: kind of ``SE3Norm`` after each attention, or "none".
        sharing: sharing of radial networks (see ``SE3Messages``), or one value per layer, the convolution last.
        heads, channels_div, distance, hidden, radial_norm, activation, cutoff: as for ``SE3Attention``.
        self_per_edge: as for ``SE3Convolution``.

    Shapes:
        x: [N, irreps_in.dim]. Returns [N, irreps_out.dim]. The graph needs harmonics up to ``lmax``.

    Raises:
        InputError: the number of sharings is not the number of layers plus one, or a number is out of range.

    Attributes:
        lmax: highest degree of the harmonics that the block needs.

    Source:
        Fuchs et al., NeurIPS 2020, arXiv:2006.10503, section 4.
    """

    group = "SE(3)"

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_hidden: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        layers: int,
        edge_width: int,
        heads: int = 8,
        channels_div: int = 2,
        norm: NormKind | Literal["none"] = "bounded",
        distance: bool = False,
        hidden: int = 32,
        sharing: RadialSharing | Sequence[RadialSharing] = "all",
        radial_norm: bool = True,
        activation: Activation = "silu",
        cutoff: float | None = None,
        self_per_edge: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(self, heads=heads, channels_div=channels_div, hidden=hidden)
        check_sizes(self, least=0, layers=layers, edge_width=edge_width)
        check_positive(self, cutoff=cutoff)
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        self.edge_width, self.cutoff = edge_width, cutoff
        *sharings, last = [sharing] * (layers + 1) if isinstance(sharing, str) else sharing
        if len(sharings) != layers:
            raise InputError(f"{layers} layers and a convolution need {layers + 1} sharings, not {len(sharings) + 1}.")
        irreps = [self.irreps_in, *[o3.Irreps(irreps_hidden)] * layers]
        radial: dict[str, Any] = {"distance": distance, "hidden": hidden, "radial_norm": radial_norm}
        radial |= {"activation": activation, "cutoff": cutoff}
        self.layers = nn.ModuleList(
            SE3Attention(irreps[n], irreps_hidden, edge_width, heads, channels_div, sharing=sharings[n], **radial)
            for n in range(layers)
        )
        self.norms = nn.ModuleList(SE3Norm(irreps_hidden, norm) for _ in range(layers) if norm != "none")
        self.last = SE3Convolution(
            irreps[-1], irreps_out, edge_width, sharing=last, self_per_edge=self_per_edge, **radial
        )
        degrees = [entry.lmax for entry in irreps]
        self.lmax = max(
            degree + other for degree, other in zip(degrees, [*degrees[1:], self.irreps_out.lmax], strict=True)
        )

    @classmethod
    def example(cls) -> Self:
        hidden = "4x0e + 4x1o"
        return cls("3x0e", hidden, "2x0e + 2x1o", 2, edge_width=4, heads=2, channels_div=1, hidden=6, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph, basis: EdgeBasis | None = None) -> Tensor:
        basis = EdgeBasis(graph, self.cutoff) if basis is None else basis
        for n, layer in enumerate(self.layers):
            x = layer(x, graph, basis)
            if self.norms:
                x = self.norms[n](x)
        result: Tensor = self.last(x, graph, basis)
        return result
