"""Heads of networks without symmetry: a scalar from the features of every layer, and a vector from scalars."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn.functional import silu

from geoeq.errors import InputError, check_name, check_sizes
from geoeq.fields import field
from geoeq.graph import Graph
from geoeq.layers.layer import Group
from geoeq.models.heads.head import Head, checked_name
from geoeq.models.heads.scalar_heads import GraphScalar, linear_weights, with_one

__all__ = ["Combine", "DecodedVector", "Decoder", "DecoderNorm", "EveryLayerScalar", "Weights"]

Combine = Literal["linear", "sum"]
Weights = Literal["none", "initial", "final"]
Decoder = Literal["mlp", "res", "res_updown"]
DecoderNorm = Literal["layer", "batch", "none"]


class EveryLayerScalar(GraphScalar):
    """A scalar of each graph: a network of the features of every layer, pooled over atoms and combined over layers.

    ``Σ_k c_k Σ_atoms a(x_k) f(x_k)``; f is the same for every layer k, c is learned or 1.

    Args:
        name: a graph-level scalar of ``geoeq.fields``.
        reduce: "sum" or "mean"; by default a sum for extensive quantities.
        combine: "linear" learns c, "sum" sets it to 1.
        weights: a is 1 ("none"), or a learned linear function of the features of the layer itself ("final") or of
            those before the first layer ("initial").
        bias: add a learned constant to each graph, as published with "linear"; a sum is then no longer extensive.

    Shapes:
        Returns [G].

    Raises:
        InputError: an option is unknown, or the features are not the same number of scalars in each layer.

    Source:
        Duval et al. 2023, arXiv:2305.05577, and the published code. Differs: there is no bias by default.
    """

    def __init__(
        self,
        name: str,
        reduce: Literal["sum", "mean"] | None = None,
        combine: Combine = "linear",
        weights: Weights = "none",
        bias: bool = False,
    ) -> None:
        super().__init__(name, reduce)
        check_name("combine", combine, get_args(Combine))
        check_name("weights", weights, get_args(Weights))
        self.combine, self.weights, self.bias = combine, weights, bias

    def make(self, irreps: o3.Irreps) -> None:
        sizes = {(mul, str(ir)) for mul, ir in irreps}
        if len(sizes) != 1 or irreps.count("0e") != irreps.dim:
            raise InputError(
                f"EveryLayerScalar needs the same number of scalars from each layer; the network gives {irreps}."
            )
        linear = self.combine == "linear"
        self.network = nn.Sequential(_EveryLayer(irreps[0].mul, self.weights, total=not linear))
        self.pooled = nn.Linear(len(irreps), 1, bias=self.bias) if linear else None  # type: ignore[assignment]

    def last_features(self, x: Tensor, graph: Graph) -> Tensor:
        """Return the features of f, which all layers share, ``Σ_k c_k Σ_atoms a(x_k) h(x_k)``, and 1 for the bias.

        The output is linear in the last map of f and in c; f has more features than there are layers.
        """
        features = self._reduced(self.last_of_atoms(x).double(), graph)
        return features if self._mixed is None or self._mixed.bias is None else with_one(features)

    def last_of_atoms(self, x: Tensor) -> Tensor:
        """Return the inputs of the last map of f, summed over the layers with the weights a and c."""
        weighted: Tensor = self.network[0].weighted(self.scalars(x))  # type: ignore[operator]
        return weighted.sum(1) if self._mixed is None else torch.einsum("nlw,l->nw", weighted, self._mixed.weight[0])

    def last_weights(self) -> Tensor:
        """Return the weights of f, and the bias if there is one."""
        weights = linear_weights(self.network[0].last)  # type: ignore[arg-type]
        return weights if self._mixed is None or self._mixed.bias is None else torch.cat([weights, self._mixed.bias])

    @property
    def _mixed(self) -> nn.Linear | None:
        """The linear map over layers with c and a bias, if c is learned."""
        return self.pooled  # type: ignore[return-value]


class _EveryLayer(nn.Module):
    """The network of ``EveryLayerScalar``: [N, L C] to [N, L], or their total [N, 1]."""

    def __init__(self, width: int, weights: Weights, total: bool) -> None:
        super().__init__()
        self.width, self.initial, self.total = width, weights == "initial", total
        self.first = nn.Linear(width, max(width // 2, 1))
        self.last = nn.Linear(max(width // 2, 1), 1)
        self.weight = None if weights == "none" else nn.Linear(width, 1)

    def weighted(self, x: Tensor) -> Tensor:
        """Return the inputs of the last map, and 1 for its bias, times the weights of atoms, [N, L, C // 2 + 1]."""
        x = x.unflatten(-1, (-1, self.width))
        hidden: Tensor = silu(self.first(x))
        hidden = torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1)
        return hidden if self.weight is None else hidden * self.weights(x)

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights of atoms [N, 1 or L, 1] from the features [N, L, C] of the layers."""
        weights: Tensor = self.weight(x[:, :1] if self.initial else x)  # type: ignore[misc]
        return weights

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(-1, (-1, self.width))  # [N, L, C]
        values: Tensor = self.last(silu(self.first(x)))  # [N, L, 1]
        if self.weight is not None:
            values = values * self.weights(x)
        return values.sum(1) if self.total else values.squeeze(-1)


class DecodedVector(Head):
    """A vector of each node: three outputs of a network of its features in the last layer.

    An output that moves with the origin, such as "positions", is the position of the node plus the vector. It does not
    rotate with the input, so a model of the group E(3) or SE(3) refuses this head.

    Args:
        name: a node-level vector of ``geoeq.fields``, such as "forces" predicted directly.
        hidden: number of hidden channels; by default as many as features.
        kind: "mlp" has one hidden layer; "res" and "res_updown" precede it by a residual block of two layers as wide as
            the features, or of three layers, the first two with the hidden width.
        norm: normalization before SiLU: of each atom ("layer"), over all atoms of the batch in training as published
            ("batch", a BatchNorm: in training a prediction depends on the rest of the batch), or "none".

    Shapes:
        Returns [N, 3].

    Raises:
        InputError: an option is unknown, or the features are not scalars, or a number is out of range.

    Source:
        Duval et al. 2023, arXiv:2305.05577, and the published code. Differs: its norm is over a batch.
    """

    group: Group = "T(3)"

    def __init__(
        self, name: str, hidden: int | None = None, kind: Decoder = "mlp", norm: DecoderNorm = "layer"
    ) -> None:
        super().__init__()
        check_sizes(self, hidden=hidden)
        self.name = checked_name(name, "node", "1o")
        self.names, self.translates = (name,), field(name).translates
        check_name("kind", kind, get_args(Decoder))
        check_name("norm", norm, get_args(DecoderNorm))
        self.hidden, self.kind, self.norm = hidden, kind, norm

    def make(self, irreps: o3.Irreps) -> None:
        if not len(irreps) or irreps.count("0e") != irreps.dim:
            raise InputError(f"DecodedVector needs scalars; the network gives {irreps}.")
        self.channels = irreps[-1].mul
        hidden = self.hidden or self.channels
        trunk = {"mlp": (), "res": (self.channels,) * 2, "res_updown": (hidden, hidden, self.channels)}[self.kind]
        widths = (self.channels, *trunk)
        self.trunk = nn.ModuleList(self._block(*pair) for pair in zip(widths, trunk, strict=False))
        self.network = nn.Sequential(*self._block(self.channels, hidden), nn.Linear(hidden, 3))

    def _block(self, width: int, width_out: int) -> nn.Sequential:
        norms: dict[str, type[nn.Module]] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        norm = [norms[self.norm](width_out)] if self.norm in norms else []
        return nn.Sequential(nn.Linear(width, width_out), *norm, nn.SiLU())

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        x = x[:, -self.channels :]
        residual = x
        for block in self.trunk:
            residual = block(residual)
        vector = self.network(x + residual if len(self.trunk) else x)
        return {self.name: graph.positions + vector if self.translates else vector}
