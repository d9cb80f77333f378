"""The description of a tensor product in plain numbers, from which every backend works."""

from __future__ import annotations

import ast
import copy
import functools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal

import torch
from e3nn import o3
from torch import Tensor

from geoeq.constants import constant
from geoeq.errors import InputError

__all__ = ["Mode", "Path", "Paths", "coupling", "described_heads", "described_paths", "described_shapes"]

#: "uvu": one weight per channel. "uvw": channels are mixed by a matrix of weights.
Mode = Literal["uvu", "uvw"]


@constant
def coupling(l_x: int, l_harmonics: int, l_out: int) -> Tensor:
    """Return the Wigner 3j symbols of real harmonics with e3nn's phases, ``Σ C² = 1``, exact in float64.

    Shapes:
        Returns [2 l_x + 1, 2 l_harmonics + 1, 2 l_out + 1].

    Raises:
        InputError: the degrees do not couple.
    """
    if not abs(l_x - l_harmonics) <= l_out <= l_x + l_harmonics:
        raise InputError(f"Degrees {l_x} and {l_harmonics} do not couple to {l_out}.")
    symbols: Tensor = o3.wigner_3j(l_x, l_harmonics, l_out, dtype=torch.float64)
    return symbols


@dataclass(frozen=True)
class Path:
    """One coupling of a block of the input and one harmonic to (a part of) a block of the output.

    Attributes:
        degrees: degrees l of the input, of the harmonic and of the output.
        x_block: index of the block of the input.
        x_channels: number U of channels of that block.
        out_block: index of the block of the output.
        out_channel: first channel of that block to which the path writes.
        out_channels: number of channels to which it writes: U for "uvu", W for "uvw".
        weight_start: first column of the weights of the path: [U], or [U, W] row by row.
        mode: "uvu" or "uvw".
        coefficient: factor of ``coupling(*degrees)``.
    """

    degrees: tuple[int, int, int]
    x_block: int
    x_channels: int
    out_block: int
    out_channel: int
    out_channels: int
    weight_start: int
    mode: Mode
    coefficient: float

    @property
    def harmonics_start(self) -> int:
        """First column of the harmonic."""
        return self.degrees[1] ** 2

    @property
    def weight_numel(self) -> int:
        """Number of weights per edge."""
        return self.x_channels * (1 if self.mode == "uvu" else self.out_channels)


@dataclass(frozen=True, eq=False)
class Paths:
    """A tensor product: all of its paths, built once and shared by all calls.

    A row of features consists of blocks side by side, each ``[2 l + 1, channels]``: channels last.

    Attributes:
        paths: the paths, in the order of their weights.
        x_blocks: (2 l + 1, channels) of each block of the input.
        out_blocks: (2 l + 1, channels) of each block of the output.
        divided: whether the output consists of its blocks one after another, each with all rows, instead of rows of
            blocks. A linear map reads such a block at full speed. Not every backend supports it.
        heads: 0 if every channel of a path has its own weight. Otherwise number H of attention heads, each with one
            weight for all channels; the output then has H copies of each block, one after another (and is divided).
        harmonics_dim: number of columns of the harmonics that are read; a graph may have more.
        x_dim, out_dim: number of columns of the input and of the output.
        weight_numel: number of weights per edge.
        work: amount of work of a kernel per row and degree, in numbers computed, summed over the paths.
        covered: whether paths write to all channels of the output, and any two of them to equal or disjoint channels.
        description: all of this as a text, from which ``described_paths`` restores it.
        by_block: the same product with its output divided; defined only if this one's is not.
        single: the same product without heads; defined only for results of ``with_heads``.
        pieces: groups of paths from one block of the input to adjacent channels of one block of the output, as indices
            into ``paths``; one matrix product computes a piece.
        matrix: all couplings, for the reference. The product of the harmonics with it contains, for each piece of P
            paths, ``Σ_j C_ijk Y_j`` as [2 l_out + 1, P, 2 l_x + 1], row by row. [harmonics_dim, ...], float64.
    """

    paths: tuple[Path, ...]
    x_blocks: tuple[tuple[int, int], ...]
    out_blocks: tuple[tuple[int, int], ...]
    divided: bool = False
    heads: int = 0
    harmonics_dim: int = field(init=False)
    x_dim: int = field(init=False)
    out_dim: int = field(init=False)
    weight_numel: int = field(init=False)
    work: int = field(init=False, repr=False)
    covered: bool = field(init=False, repr=False)
    description: str = field(init=False, repr=False)
    by_block: Paths = field(init=False, repr=False)
    single: Paths = field(init=False, repr=False)
    pieces: tuple[tuple[int, ...], ...] = field(init=False, repr=False)
    matrix: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        unreached = set(range(len(self.out_blocks))) - {path.out_block for path in self.paths}
        if unreached or not self.paths:
            raise InputError(
                f"Each block of the output needs a path; none leads to {sorted(unreached) or 'any block'}."
            )
        pieces, weights = _pieces(self.paths), sum(path.weight_numel for path in self.paths)
        harmonics_dim = max((path.degrees[1] + 1) ** 2 for path in self.paths)
        for name, value in {
            "harmonics_dim": harmonics_dim,
            "x_dim": sum(dim * channels for dim, channels in self.x_blocks),
            "out_dim": sum(dim * channels for dim, channels in self.out_blocks),
            "weight_numel": self.heads or weights,
            "work": weights * max(1, self.heads),
            "covered": _covered(self.paths, self.out_blocks),
            "description": self._text(self.divided),
            "pieces": pieces,
            "matrix": _matrix([[self.paths[n] for n in piece] for piece in pieces], harmonics_dim),
        }.items():
            object.__setattr__(self, name, value)
        if not self.divided:
            divided = copy.copy(self)
            object.__setattr__(divided, "divided", True)
            object.__setattr__(divided, "description", self._text(divided=True))
            object.__setattr__(self, "by_block", divided)

    def _text(self, divided: bool) -> str:
        paths = [astuple(path) for path in self.paths]
        return repr((paths, self.x_blocks, self.out_blocks, divided, self.heads))

    def with_heads(self, heads: int) -> Paths:
        """Return the same product, without weights per path, for sums with this number of attention heads."""
        paths = Paths(self.paths, self.x_blocks, self.out_blocks, divided=True, heads=heads)
        object.__setattr__(paths, "single", self)
        return paths

    def out_shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the output: [rows, out_dim], or [rows * out_dim * heads] if it is divided."""
        return (rows * self.out_dim * max(1, self.heads),) if self.divided else (rows, self.out_dim)


def _covered(paths: Sequence[Path], blocks: Sequence[tuple[int, int]]) -> bool:
    ends = [0] * len(blocks)
    for block, first, channels in sorted({(path.out_block, path.out_channel, path.out_channels) for path in paths}):
        if first != ends[block]:
            return False
        ends[block] += channels
    return ends == [channels for _, channels in blocks]


def described_shapes(description: str, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of input and output of the described tensor product, without building it."""
    _, x_blocks, out_blocks, divided, heads = ast.literal_eval(description)
    x_dim, out_dim = (sum(dim * channels for dim, channels in blocks) for blocks in (x_blocks, out_blocks))
    return (rows, x_dim), (rows * out_dim * max(1, heads),) if divided else (rows, out_dim)


def described_heads(description: str) -> int:
    """Return the number of heads of the described tensor product, without building it."""
    heads: int = ast.literal_eval(description)[-1]
    return heads


@functools.cache
def described_paths(description: str) -> Paths:
    """Return the described tensor product, built once."""
    paths, *rest = ast.literal_eval(description)
    return Paths(tuple(Path(*path) for path in paths), *rest)


def _pieces(paths: Sequence[Path]) -> tuple[tuple[int, ...], ...]:
    def joins(path: Path, before: Path) -> bool:
        same = (path.x_block, path.out_block, path.mode) == (before.x_block, before.out_block, before.mode)
        if path.mode == "uvw":
            return same and path.out_channels == before.out_channels and path.out_channel == before.out_channel
        return same and path.out_channel == before.out_channel + before.out_channels

    pieces: list[list[int]] = []
    for n in sorted(range(len(paths)), key=lambda n: (paths[n].x_block, paths[n].out_block, paths[n].out_channel)):
        if pieces and joins(paths[n], paths[pieces[-1][-1]]):
            pieces[-1].append(n)
        else:
            pieces.append([n])
    return tuple(map(tuple, pieces))


def _matrix(pieces: Sequence[Sequence[Path]], harmonics_dim: int) -> Tensor:
    columns = []
    for piece in pieces:
        dim_x, _, dim_out = (2 * degree + 1 for degree in piece[0].degrees)
        column = torch.zeros(harmonics_dim, dim_out, len(piece), dim_x, dtype=torch.float64)
        for n, path in enumerate(piece):
            rows = path.coefficient * coupling(*path.degrees).permute(1, 2, 0)  # [j, k, i]
            column[path.harmonics_start : path.harmonics_start + rows.shape[0], :, n] = rows
        columns.append(column.flatten(1))
    return torch.cat(columns, dim=1)
