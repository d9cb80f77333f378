"""A kernel in Triton's language, and the tile that one of its programs computes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INDICES", "SUMS", "Kernel", "Tile", "words"]

#: Arguments that are pointers to int64; others point to features, weights or results.
INDICES = ("sender", "receiver", "row_pointers", "order", "pointers")

#: Arguments that are pointers to partial sums, in the dtype of the computation.
SUMS = ("shares",)


@dataclass(frozen=True)
class Tile:
    """The amount of work of one program.

    Attributes:
        channels: number of channels, a power of two.
        warps: number of warps of 32 threads, among which the channels are divided.
        edges: number of successive edges, in kernels over edges.
        together: number of edges processed at once.
        units: maximum number of columns of a hidden layer multiplied at once.
    """

    channels: int
    warps: int
    edges: int = 1
    together: int = 1
    units: int = 64

    @property
    def per_thread(self) -> int:
        """Entries per thread of an array with one entry per channel and edge processed at once."""
        return max(1, self.channels * self.together // (32 * self.warps))


@dataclass(frozen=True)
class Kernel:
    """A module in Triton's language with the function ``name``.

    Attributes:
        text: text of the module.
        arguments: arguments of the function; all are pointers except ``count``, the number of rows.
        tile: tile for which the text was generated.
        rows: number of rows per program.
        tasks: number of programs that share a row.
        held: 32-bit registers per thread occupied throughout, by sums and by values that several paths read.
    """

    name: str
    text: str
    arguments: tuple[str, ...]
    tile: Tile
    rows: int
    tasks: int
    held: int


def words(scalar: str) -> int:
    """Return the number of 32-bit registers that a number occupies."""
    return 2 if scalar == "float64" else 1
