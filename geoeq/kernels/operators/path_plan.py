"""The plan of a fully connected tensor product: the degrees it couples, and the slices of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

__all__ = ["OutBlock", "PairBlock", "PathPlan"]


@dataclass(frozen=True)
class PairBlock:
    """Slices of a pair of degrees (l in, k out): in x, in the weights and among the terms before the couplings."""

    degree_in: int
    degree_out: int
    channels_in: int
    channels_out: int
    dim: int  # 2 l + 1
    paths: int  # 2 min(l, k) + 1
    columns: int  # paths * channels_out
    x: slice
    weight: slice
    middle: slice


@dataclass(frozen=True)
class OutBlock:
    """Slices of an output degree: among the terms, in the couplings and in the message."""

    degree: int
    channels: int
    dim: int
    rows: int  # Σ_l (2 l + 1) paths
    middle: slice
    basis: slice
    message: slice


@dataclass(frozen=True)
class PathPlan:
    """A tensor product of every input degree to every output degree by every path ``J = |l - k| .. l + k``.

    Args:
        inputs: (degree, channels) of each block of the features.
        outputs: (degree, channels) of each block of the messages.
        hidden: number H of hidden channels, on which the slices of the weights depend.

    Attributes:
        code: the plan as integers, the form in which an operator of PyTorch takes it.
    """

    inputs: tuple[tuple[int, int], ...]
    outputs: tuple[tuple[int, int], ...]
    hidden: int
    code: tuple[int, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        flat = [number for block in (*self.inputs, *self.outputs) for number in block]
        object.__setattr__(self, "code", (self.hidden, len(self.inputs), *flat))

    @cached_property
    def pairs(self) -> tuple[PairBlock, ...]:
        """Pairs of degrees, ordered by output: (l1, k1), (l2, k1) .. (l1, k2) .."""
        pairs = []
        weight = middle = 0
        for degree_out, channels_out in self.outputs:
            x = 0
            for degree, channels in self.inputs:
                dim, paths = 2 * degree + 1, 2 * min(degree, degree_out) + 1
                columns = paths * channels_out
                numel = channels * self.hidden * columns
                slices = [slice(x, x + dim * channels), slice(weight, weight + numel)]
                slices.append(slice(middle, middle + dim * columns))
                pairs.append(PairBlock(degree, degree_out, channels, channels_out, dim, paths, columns, *slices))
                x, weight, middle = x + dim * channels, weight + numel, middle + dim * columns
        return tuple(pairs)

    @cached_property
    def outs(self) -> tuple[OutBlock, ...]:
        """Block of each output degree."""
        blocks = []
        middle = basis = message = 0
        for degree, channels in self.outputs:
            rows = sum((2 * other + 1) * (2 * min(other, degree) + 1) for other, _ in self.inputs)
            dim = 2 * degree + 1
            sizes = (rows * channels, rows * dim, dim * channels)
            slices = [slice(start, start + size) for start, size in zip((middle, basis, message), sizes, strict=True)]
            blocks.append(OutBlock(degree, channels, dim, rows, *slices))
            middle, basis, message = middle + sizes[0], basis + sizes[1], message + sizes[2]
        return tuple(blocks)

    @cached_property
    def middle(self) -> int:
        """Number M of terms per edge."""
        return sum(pair.dim * pair.columns for pair in self.pairs)

    @cached_property
    def basis_dim(self) -> int:
        """Number of couplings per edge."""
        return sum(out.rows * out.dim for out in self.outs)

    @cached_property
    def message_dim(self) -> int:
        """Number of entries of a message."""
        return sum(out.dim * out.channels for out in self.outs)

    @cached_property
    def weight_numel(self) -> int:
        """Number of weights."""
        return sum(pair.channels_in * self.hidden * pair.columns for pair in self.pairs)

    @property
    def bare(self) -> PathPlan:
        """The plan with one channel per degree, which has the same couplings."""
        ins, outs = (tuple((degree, 1) for degree, _ in blocks) for blocks in (self.inputs, self.outputs))
        return PathPlan(ins, outs, 1)

    @property
    def degrees(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Degrees of the inputs, and of the outputs."""
        return tuple(degree for degree, _ in self.inputs), tuple(degree for degree, _ in self.outputs)

    @classmethod
    def decode(cls, code: Sequence[int]) -> PathPlan:
        """Return the plan of a ``code``."""
        blocks = list(zip(code[2::2], code[3::2], strict=True))
        return cls(tuple(blocks[: code[1]]), tuple(blocks[code[1] :]), code[0])
