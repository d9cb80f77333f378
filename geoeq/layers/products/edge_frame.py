"""The product in the edge frame: linear maps that commute with rotations about the edge."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoeq.errors import InputError
from geoeq.graph import Graph, edge_frames
from geoeq.layers.edge_frames.so2 import frame_matrix
from geoeq.layers.layer import Group
from geoeq.layers.products.product import EdgeProduct

__all__ = ["EdgeFrameProduct"]


class EdgeFrameProduct(EdgeProduct):
    """Rotate features so that the edge is the pole, mix degrees for each order m, and rotate back.

    In this frame, harmonics are nonzero only for m = 0, and an equivariant map is one that commutes with rotations
    about the pole: it has one number for each m and pair of degrees, or two with "SE(3)" and m > 0::

        z_l3,±m = Σ_l1 (a_l1,l3,m x_l1,±m ∓ b_l1,l3,m x_l1,∓m) / sqrt(number of terms)

    The a correspond to the paths of even l1 + l2 + l3 and the b to those of odd l1 + l2 + l3, with harmonics of every
    degree up to l1 + l3. The cost is O(L³) per channel, like that of the rotations.

    Args:
        channels, lmax, lmax_out, group: as for ``EdgeProduct``; lmax_out is lmax by default. Harmonics are not used, so
            lmax_edge does not exist.
        mmax: highest order that is kept; by default all are.

    Shapes:
        As ``EdgeProduct``; weights: [E, W], ordered by m, l1, l3, (a, b), channel.

    Raises:
        InputError: mmax is negative.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655, section 4. Differs: weights for each edge and channel
        instead of matrices that mix channels; "E(3)" omits b.
    """

    def __init__(
        self, channels: int, lmax: int, lmax_out: int | None = None, group: Group = "E(3)", mmax: int | None = None
    ) -> None:
        lmax_out = lmax if lmax_out is None else lmax_out
        super().__init__(channels, lmax, lmax + lmax_out, lmax_out, group)
        highest = min(self.lmax, self.lmax_out)
        self.mmax = highest if mmax is None else min(mmax, highest)
        if self.mmax < 0:
            raise InputError(f"mmax must be at least 0, not {mmax}.")
        orders = range(self.mmax + 1)
        self.shapes = [(self.lmax + 1 - m, self.lmax_out + 1 - m, 2 if m and group == "SE(3)" else 1) for m in orders]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.weight_numel = sum(self.sizes) * channels

    @property
    def expressivity(self) -> int:
        return sum(self.sizes)

    def messages(self, x: Tensor, weights: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
        frames = edge_frames(graph, max(self.lmax, self.lmax_out))
        to_frame = frame_matrix(frames, self.lmax, self.mmax)  # [E, K, (lmax + 1)²], rows m = 0, then 1, -1, 2, -2, ...
        from_frame = to_frame if self.lmax_out == self.lmax else frame_matrix(frames, self.lmax_out, self.mmax)
        weights = weights if envelope is None else weights * envelope
        return torch.bmm(from_frame.mT.to(x.dtype), self._map(torch.bmm(to_frame.to(x.dtype), x), weights))

    def _map(self, x: Tensor, weights: Tensor) -> Tensor:
        """Mix degrees for each order: [E, K, C] to [E, K_out, C]."""
        signs = [1 if m == 0 else 2 for m in range(self.mmax + 1)]
        inputs = x.split([sign * shape[0] for sign, shape in zip(signs, self.shapes, strict=True)], dim=1)
        weights_by_order = weights.unflatten(1, (-1, self.channels)).split(self.sizes, dim=1)
        out = []
        for sign, shape, value, weight in zip(signs, self.shapes, inputs, weights_by_order, strict=True):
            value = value.unflatten(1, (sign, shape[0], 1))  # [E, ±, l1, 1, C]
            weight = weight.unflatten(1, (1, *shape))  # [E, 1, l1, l3, a or b, C]
            result = (value * weight[:, :, :, :, 0]).sum(2)  # [E, ±, l3, C]
            if shape[2] == 2:
                other = (value * weight[:, :, :, :, 1]).sum(2)
                result = result + torch.cat([-other[:, 1:], other[:, :1]], dim=1)
            out.append(result.flatten(1, 2) / math.sqrt(shape[0] * shape[2]))
        return torch.cat(out, dim=1)
