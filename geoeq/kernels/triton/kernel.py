"""A kernel in Triton's language, and the tile that one program of it does."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["INDICES", "SUMS", "Kernel", "Tile", "words"]

#: Pointers to int64; others point to features, weights or results.
INDICES = ("sender", "receiver", "row_pointers", "order", "pointers")

#: Pointers to sums that other sums are made of: in the dtype in which is computed.
SUMS = ("shares",)


@dataclass(frozen=True)
class Tile:
    """What one program does.

    Attributes:
        channels: a power of two.
        warps: of 32 threads, which share the channels.
        edges: that it goes through, of the kernel over edges.
        together: edges that are taken at once.
        units: columns of a hidden layer that are multiplied at once, at most.
    """

    channels: int
    warps: int
    edges: int = 1
    together: int = 1
    units: int = 64

    @property
    def per_thread(self) -> int:
        """Numbers of a thread, where there is one for each channel and edge that is taken at once."""
        return max(1, self.channels * self.together // (32 * self.warps))


@dataclass(frozen=True)
class Kernel:
    """A module in Triton's language with the function ``name``.

    Attributes:
        text: of the module.
        arguments: of the function; all are pointers but ``count``, the number of rows.
        tile: for which it was written.
        rows: of a program.
        tasks: programs that share a row.
        held: 32-bit registers of a thread that are taken all the time, by sums and by what several paths read.
    """

    name: str
    text: str
    arguments: tuple[str, ...]
    tile: Tile
    rows: int
    tasks: int
    held: int


def words(scalar: str) -> int:
    """32-bit registers that a number takes."""
    return 2 if scalar == "float64" else 1
