"""SO(2) convolution: the equivariant linear map in the frame of an edge, with rotations to the frame and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from geoeq.errors import InputError, TensorError, check_sizes
from geoeq.layers.chunked import chunked
from geoeq.layers.radial.radial_network import RadialNetwork
from geoeq.layers.sphere.s2_grid import degree_order, order_degree

__all__ = [
    "SO2Convolution",
    "attention_sum",
    "by_order",
    "convolve_orders",
    "frame_matrix",
    "from_edge_frame",
    "order_sizes",
    "pair_terms",
    "rotate_back",
    "to_edge_frame",
]


def order_sizes(lmax: int, mmax: int) -> tuple[int, ...]:
    """Return for m = 0 to mmax the number of degrees that have this order.

    Raises:
        InputError: mmax is not between 0 and lmax.
    """
    if not 0 <= mmax <= lmax:
        raise InputError(f"mmax must lie between 0 and lmax = {lmax}, not {mmax}.")
    return tuple(lmax + 1 - m for m in range(mmax + 1))


def frame_matrix(frames: Sequence[Tensor], lmax: int, mmax: int) -> Tensor:
    """Return the rotations to the edge frames, as one matrix for all degrees and the orders up to mmax.

    One product with a block-diagonal matrix takes at most half the time of one product per degree, because nothing is
    concatenated afterwards.

    Shapes:
        frames: [E, 2l + 1, 2l + 1] for l = 0 to lmax or more, of ``geoeq.graph.edge_frames``.
        Returns [E, R, (lmax + 1)²], rows in the order of ``order_degree``.
    """
    rows = []
    for degree in range(lmax + 1):
        orders = min(degree, mmax)
        block = frames[degree][:, degree - orders : degree + orders + 1]  # [E, min(2l + 1, 2 mmax + 1), 2l + 1]
        rows.append(pad(block, (degree**2, (lmax + 1) ** 2 - (degree + 1) ** 2)))
    row_of = {lm: row for row, lm in enumerate(degree_order(lmax, mmax))}
    order = torch.tensor([row_of[lm] for lm in order_degree(lmax, mmax)], device=rows[0].device)
    return torch.cat(rows, dim=1).index_select(1, order)


def to_edge_frame(x_edges: Tensor, frames: Sequence[Tensor], lmax: int, mmax: int) -> Tensor:
    """Rotate features of edges to the frames in which the edges are the y axis, keeping the orders up to mmax.

    Args:
        x_edges: features of the edges in e3nn's order, channels last.
        frames: frames of ``geoeq.graph.edge_frames``.
        lmax: highest degree of the features.
        mmax: highest order of the result.

    Shapes:
        x_edges: [E, (lmax + 1)², C]. Returns [E, R, C], rows in the order of
        ``geoeq.layers.sphere.s2_grid.order_degree``: m = 0 for l = 0 to lmax, then for each m first +m and then -m,
        for l = m to lmax.
    """
    return torch.bmm(frame_matrix(frames, lmax, mmax).to(x_edges.dtype), x_edges)


def from_edge_frame(y: Tensor, frames: Sequence[Tensor], lmax: int, mmax: int, rescale: bool = False) -> Tensor:
    """Rotate features from the edge frames back; the orders above mmax are zero.

    Args:
        y: features as returned by ``to_edge_frame``.
        frames, lmax, mmax: as for ``to_edge_frame``.
        rescale: whether to multiply the degrees above mmax by ``sqrt((2l + 1) / (2 mmax + 1))``, as in EquiformerV2, to
            compensate for the omitted orders.

    Shapes:
        y: [E, R, C]. Returns [E, (lmax + 1)², C].
    """
    matrix = frame_matrix(frames, lmax, mmax).to(y.dtype)
    if rescale:
        factors = [math.sqrt((2 * degree + 1) / (2 * min(degree, mmax) + 1)) for degree, _ in order_degree(lmax, mmax)]
        matrix = matrix * matrix.new_tensor(factors).unsqueeze(-1)
    return torch.bmm(matrix.transpose(1, 2), y)


def by_order(x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the rows of m = 0 side by side, [E, n C], then for each m > 0 those of the pair (+m, -m), [E, 2, n C].

    Shapes:
        x: [E, R, C], rows in the order of ``order_degree``; sizes: of ``order_sizes``.
    """
    first, *pairs = x.split([sizes[0], *(2 * size for size in sizes[1:])], dim=1)
    return [first.flatten(1), *(pair.flatten(1).unflatten(1, (2, -1)) for pair in pairs)]


def pair_terms(pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the inputs of the three products that multiply a pair (+m, -m) by a complex number: sum, +m and -m.

    Shapes:
        pair: [E, 2, D]. Returns three times [E, D].
    """
    plus, minus = pair.unbind(1)
    return plus + minus, plus, minus


def convolve_orders(parts: Sequence[Tensor], matrices: Sequence[Tensor], bias: Tensor) -> Tensor:
    """Apply an SO(2) convolution with the ``matrices()`` and the bias of an ``SO2Convolution``.

    Shapes:
        parts: one for each matrix: the rows of m = 0 side by side, then the three ``pair_terms`` of each m > 0.
        Returns [E, D]: the results of m = 0, +1, -1, +2, ... side by side.
    """
    results = [linear(parts[0], matrices[0], bias)]
    products = (linear(part, matrix) for part, matrix in zip(parts[1:], matrices[1:], strict=True))
    for real, imaginary, other in zip(products, products, products, strict=True):
        results += [real + other, real + imaginary]
    return torch.cat(results, dim=1)


class SO2Convolution(nn.Module):
    """The general linear map of features in an edge frame that commutes with rotations about the edge.

    Degrees and channels mix, orders do not; for each m > 0 two matrices act on the pair (+m, -m) like a complex
    number::

        y_0  = W_0 x_0 + b
        y_+m = W_m x_+m - V_m x_-m
        y_-m = V_m x_+m + W_m x_-m

    Between ``to_edge_frame`` and ``from_edge_frame``, with weights that depend on the length, it is the tensor product
    with the harmonics of the edge, in O(L³) operations.

    Args:
        lmax, mmax: highest degree and order.
        channels_in, channels_out: numbers C of channels of each degree.
        extra_scalars: number S of additional invariants from the m = 0 coefficients, for gates and attention.
        radial_widths: number of invariants of an edge and hidden widths of the network that computes from them one
            factor for each degree, channel and m >= 0 of the input. None: the weights are the same for all edges.

    Shapes:
        x: [E, R, C_in], as from ``to_edge_frame``. edge_features: [E, K] invariants, K the first of ``radial_widths``.
        weights: without a radial network, the factors of the input, [E, sum(order_sizes) * C_in], or None.
        Returns [E, R, C_out], and [E, S] or None if S is 0.

    Raises:
        InputError: mmax is not between 0 and lmax, or a number is out of range.
        TensorError: x has the wrong shape, or edge features are missing.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655; in the form of Liao et al., ICLR 2024,
        arXiv:2306.12059, section 4.1.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels_in: int,
        channels_out: int,
        extra_scalars: int = 0,
        radial_widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, channels_in=channels_in, channels_out=channels_out, radial_widths=radial_widths)
        check_sizes(self, least=0, lmax=lmax, extra_scalars=extra_scalars)
        self.sizes = order_sizes(lmax, mmax)
        self.channels_in, self.channels_out, self.extra_scalars = channels_in, channels_out, extra_scalars
        self.scalar = nn.Linear(self.sizes[0] * channels_in, extra_scalars + self.sizes[0] * channels_out)
        self.orders = nn.ModuleList(
            nn.Linear(size * channels_in, 2 * size * channels_out, bias=False) for size in self.sizes[1:]
        )
        with torch.no_grad():
            for order in self.orders:
                order.weight.mul_(math.sqrt(0.5))  # type: ignore[operator]  # the sum of two products has variance 1
        self.radial = None
        if radial_widths is not None:
            self.radial = RadialNetwork(
                radial_widths[0], radial_widths[1:], sum(self.sizes) * channels_in, offset=False
            )
        self.rows = 2 * sum(self.sizes) - self.sizes[0]

    def forward(
        self, x: Tensor, edge_features: Tensor | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if x.shape[1:] != (self.rows, self.channels_in):
            raise TensorError(f"SO2Convolution: x is {list(x.shape)}; it must be [E, {self.rows}, {self.channels_in}].")
        factors = self._factors(edge_features, weights)
        first, *pairs = by_order(x, self.sizes)
        if factors is not None:
            first = first * factors[0]
            pairs = [pair * factor.unsqueeze(1) for pair, factor in zip(pairs, factors[1:], strict=True)]
        parts = [first, *(term for pair in pairs for term in pair_terms(pair))]
        y = convolve_orders(parts, self.matrices(), self.scalar.bias)
        extra, y = y.split([self.extra_scalars, self.rows * self.channels_out], dim=-1)
        return y.unflatten(-1, (self.rows, self.channels_out)), extra if self.extra_scalars else None

    def matrices(self) -> list[Tensor]:
        """Return the matrix of m = 0, then for each m > 0 the three that multiply the ``pair_terms``."""
        return [self.scalar.weight, *(factor for order in self.orders for factor in _three_factors(order.weight))]  # type: ignore[arg-type]

    def _factors(self, edge_features: Tensor | None, weights: Tensor | None) -> tuple[Tensor, ...] | None:
        if self.radial is not None:
            if edge_features is None:
                raise TensorError("SO2Convolution has a radial network and needs edge_features.")
            weights = self.radial(edge_features)
        if weights is None:
            return None
        parts: tuple[Tensor, ...] = torch.split(weights, [size * self.channels_in for size in self.sizes], dim=-1)
        return parts


def _three_factors(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return W, V - W and -(W + V) of [W; V].

    With P = W (x + x'), the complex product of W + iV and x + ix' is P - (W + V) x' + i (P + (V - W) x): three matrix
    products instead of four, and likewise in the derivatives.
    """
    real, imaginary = weight.chunk(2)
    return real, imaginary - real, -(real + imaginary)


#: Edges per chunk: few enough that their rotated messages fit in a cache of some MB.
CHUNK = 512


def rotate_back(values: Tensor, weights: Tensor, frame: Tensor) -> Tensor:
    """Compute ``weights_e frame_e^T values_e`` of each edge, [E, K, C]. Shapes are those of ``attention_sum``."""
    return torch.bmm(frame.transpose(1, 2), values * weights.unsqueeze(1))


def attention_sum(values: Tensor, weights: Tensor, frame: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
    """Compute ``Σ_e weights_e frame_e^T values_e`` at each receiver, storing only the arguments for derivatives.

    Shapes:
        values: [E, R, C]. weights: [E, C]. frame: [E, R, K]. receiver: [E]. Returns [num_nodes, K, C].
    """
    return chunked(rotate_back, [values, weights, frame], [], CHUNK, target=(receiver, num_nodes))
