"""The columns of each path in a row, and their non-zero couplings, from which kernels are generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from geoeq.kernels.paths import Path, Paths, coupling

__all__ = ["CoupledPath", "Entry", "by_x_block", "coupled_paths"]


@dataclass(frozen=True)
class Entry:
    """``M^p_ik`` of one path as terms (j, ``C^p_ijk``), with j counted from the first harmonic."""

    i: int
    k: int
    terms: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class CoupledPath:
    """A path with its columns in a row, and the non-zero entries of its matrix ``M^p_ik = Σ_j C^p_ijk Y_j``.

    Attributes:
        path: the path.
        x_start: first column of its block of the input.
        out_start: column of its first channel in the first row of its block of the output.
        out_width: number of channels of that block.
        first_entry: index of its first entry among those of all paths.
        entries: entries of M.
    """

    path: Path
    x_start: int
    out_start: int
    out_width: int
    first_entry: int
    entries: tuple[Entry, ...]

    @property
    def channels(self) -> int:
        return self.path.x_channels

    @property
    def rows(self) -> range:
        """Indices i of x."""
        return range(2 * self.path.degrees[0] + 1)

    def x_column(self, i: int) -> int:
        """Return the first column of the channels of x_i."""
        return self.x_start + i * self.channels

    def out_column(self, k: int) -> int:
        """Return the first column of the channels of out_k."""
        return self.out_start + k * self.out_width


def coupled_paths(paths: Paths) -> list[CoupledPath]:
    """Return the coupled paths sorted by input block, so that kernels read the channels of a block once."""
    x_starts = _starts(paths.x_blocks)
    out_starts = _starts(paths.out_blocks)
    coupled, first = [], 0
    for path in sorted(paths.paths, key=lambda path: path.x_block):
        symbols = (path.coefficient * coupling(*path.degrees)).tolist()  # [i][j][k]
        entries = []
        for i in range(2 * path.degrees[0] + 1):
            for k in range(2 * path.degrees[2] + 1):
                column = [(path.harmonics_start + j, row[k]) for j, row in enumerate(symbols[i])]
                terms = tuple((j, number) for j, number in column if abs(number) > 1e-14)
                if terms:
                    entries.append(Entry(i, k, terms))
        out_start = out_starts[path.out_block] + path.out_channel
        width = paths.out_blocks[path.out_block][1]
        coupled.append(CoupledPath(path, x_starts[path.x_block], out_start, width, first, tuple(entries)))
        first += len(entries)
    return coupled


def by_x_block(coupled: list[CoupledPath]) -> Iterator[list[CoupledPath]]:
    """Group the paths by the block of the input that they read."""
    for _, members in groupby(coupled, key=lambda member: member.path.x_block):
        yield list(members)


def _starts(blocks: tuple[tuple[int, int], ...]) -> list[int]:
    starts = [0]
    for dim, channels in blocks:
        starts.append(starts[-1] + dim * channels)
    return starts
