"""The contract of edge products: features of the sender times harmonics of the edge."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import InputError, TensorError, check_sizes
from geoeq.geometry.harmonics import MAX_LMAX
from geoeq.graph import Graph
from geoeq.layers.layer import Group

__all__ = ["EdgeProduct", "Triple", "checked_degree", "product_paths"]

#: Degrees (l1, l2, l3) of features, harmonics and result.
Triple = tuple[int, int, int]


def checked_degree(name: str, degree: int) -> int:
    """Return the degree.

    Raises:
        InputError: the degree is negative or higher than that of any available harmonic.
    """
    if not 0 <= degree <= MAX_LMAX:
        raise InputError(f"{name} must be from 0 to {MAX_LMAX}, not {degree}.")
    return degree


def product_paths(lmax: int, lmax_edge: int, lmax_out: int, group: Group = "E(3)") -> list[Triple]:
    """Return the degrees that an equivariant bilinear map can couple, ``|l1 - l2| <= l3 <= l1 + l2``, by l1, l3, l2.

    With reflections, features of natural parity (0e, 1o, 2e, ...) have only paths of even l1 + l2 + l3.
    """
    return [
        (l1, l2, l3)
        for l1 in range(lmax + 1)
        for l3 in range(lmax_out + 1)
        for l2 in range(abs(l1 - l3), min(l1 + l3, lmax_edge) + 1)
        if group == "SE(3)" or (l1 + l2 + l3) % 2 == 0
    ]


class EdgeProduct(nn.Module, ABC):
    """Product of the senders' features with harmonics and weights of the edges, summed at the receivers.

    The map of each edge is linear in the features and equivariant. Each channel of the result depends only on the same
    channel of the input; linear maps before and after the product mix channels.

    Args:
        channels: number C of channels of each degree.
        lmax: highest degree of the features.
        lmax_edge: highest degree of the harmonics.
        lmax_out: highest degree of the result.
        group: "SE(3)" allows every path; "E(3)" those that preserve the parity of harmonics.

    Attributes:
        weight_numel: number W of weights of an edge. Weights of variance 1 preserve the variance of the features.

    Shapes:
        x: [N, (lmax + 1)², C]. weights: [E, W]. envelope: [E, 1], factor of the messages.
        Returns [N, (lmax_out + 1)², C].

    Raises:
        InputError: a degree is negative, too high or cannot be reached, or the group is unknown, or a number is out of
            range.
        TensorError: the harmonics of the graph end below lmax_edge.
    """

    weight_numel: int

    def __init__(self, channels: int, lmax: int, lmax_edge: int, lmax_out: int, group: Group) -> None:
        super().__init__()
        check_sizes(self, channels=channels)
        if group not in ("E(3)", "SE(3)"):
            raise InputError(f"group must be 'E(3)' or 'SE(3)', not {group!r}.")
        if lmax_out > lmax + lmax_edge:
            raise InputError(
                f"Degree {lmax_out} cannot be reached from features of lmax {lmax} and harmonics of lmax {lmax_edge}."
            )
        self.channels, self.group = channels, group
        self.lmax, self.lmax_out = checked_degree("lmax", lmax), checked_degree("lmax_out", lmax_out)
        self.lmax_edge = lmax_edge

    @property
    def interactions(self) -> list[Triple]:
        """The degrees (l1, l2, l3) that the product couples (the paper's interactability)."""
        return product_paths(self.lmax, self.lmax_edge, self.lmax_out, self.group)

    @property
    @abstractmethod
    def expressivity(self) -> int:
        """The dimension of the set of bilinear maps that the weights of one channel span (the paper's expressivity)."""

    @abstractmethod
    def messages(self, x: Tensor, weights: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
        """Compute the product on each edge, [E, (lmax + 1)², C] to [E, (lmax_out + 1)², C]."""

    def forward(self, x: Tensor, weights: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
        sent = kernels.gather(x, graph.sender)  # [E, (lmax + 1)², C]
        return kernels.segment_sum(self.messages(sent, weights, graph, envelope), graph)

    def from_hidden(
        self, x: Tensor, hidden: Tensor, matrix: Tensor, graph: Graph, envelope: Tensor | None = None
    ) -> Tensor:
        """Apply ``forward`` with the weights ``hidden @ matrix``, [E, H] and [H, W]."""
        result: Tensor = self(x, hidden @ matrix, graph, envelope)
        return result

    def harmonics(self, graph: Graph) -> Tensor:
        """Return the harmonics of the edges up to lmax_edge, [E, (lmax_edge + 1)²]."""
        if graph.lmax < self.lmax_edge:
            raise TensorError(
                f"{type(self).__name__} needs harmonics of degree {self.lmax_edge}; the graph has {graph.lmax}: "
                f"build_graph(..., lmax={self.lmax_edge})."
            )
        return graph.harmonics[:, : (self.lmax_edge + 1) ** 2]
