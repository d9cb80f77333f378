"""Write the text of Triton functions, line by line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from geoeq.kernels.coupled_paths import CoupledPath
from geoeq.kernels.triton.kernel import Tile

__all__ = ["Text", "linear", "masked", "used_harmonics"]

_HEAD = "import triton\nimport triton.language as tl\n"


@dataclass
class Text:
    """The functions of a module, which process one edge after another; ``TileText`` processes several at once.

    Attributes:
        scalar: dtype of the computation, "float32" or "float64"; numbers in memory may be shorter.
        channels: number of channels of a program, a power of two.
        lines: lines written so far.
        weights: arguments from which the weights of an edge are computed.
    """

    scalar: str
    channels: int
    lines: list[str] = field(default_factory=lambda: [_HEAD])
    weights: tuple[str, ...] = ("weights",)
    _depth: int = 0
    _narrow: str = ""  # mask of existing channels; empty if there are no others
    _there: str = ""  # mask of existing edges; empty if there are no others

    @property
    def shape(self) -> str:
        """Shape of an array with one number per channel."""
        return f"[{self.channels}]"

    @property
    def _edge_mask(self) -> str:
        return f"{masked(self._there)}, other=0" if self._there else ""

    def copies(self, tile: Tile) -> int:
        """Return the registers per thread, in numbers, that an array with one number per channel occupies."""
        return 1

    def at_once(self, paths: int) -> int:
        """Return how many of the paths share one loop over edges."""
        return paths

    def add(self, line: str) -> None:
        """Write a line of the current function or loop."""
        self.lines.append(f"{'    ' * self._depth}{line}")

    @contextlib.contextmanager
    def inside(self, head: str) -> Iterator[None]:
        """Indent the lines added in the block below ``head``."""
        self.add(f"{head}:")
        self._depth += 1
        yield
        self._depth -= 1

    @contextlib.contextmanager
    def function(self, name: str, arguments: Sequence[str], decorator: str = "@triton.jit") -> Iterator[None]:
        """Write a function of the module."""
        self.lines.append("")
        self.add(decorator)
        with self.inside(f"def {name}({', '.join(arguments)})"):
            yield
        self.lines.append("")

    def row_and_task(self, tasks: int) -> None:
        """Write which row, and which of its ``tasks``, a program computes; tasks of a row are consecutive."""
        self.add(f"row = (tl.program_id(0) // {tasks}).to(tl.int64)")
        self.add(f"task = tl.program_id(0) % {tasks}")

    @contextlib.contextmanager
    def edges(self, listed: bool = False) -> Iterator[None]:
        """Write the loop over edges from ``begin`` to ``end``, of the list ``order`` if they are ``listed``."""
        with self.inside("for place in range(begin, end)"):
            self.add("edge = tl.load(order + place)" if listed else "edge = place")
            yield

    def lanes(self, first: str, count: int) -> None:
        """Write ``channel``, those of a program from ``first``, with a mask if they do not divide ``count``."""
        self.add(f"channel = {first} + tl.arange(0, {self.channels})")
        self._narrow = "mask" if count % self.channels else ""
        if self._narrow:
            self.add(f"mask = channel < {count}")

    def zeros(self, name: str) -> None:
        """Write a sum for each channel, set to zero."""
        self.add(f"{name} = tl.zeros({self.shape}, tl.{self.scalar})")

    def row(self, name: str, base: str, ends: str, width: int) -> None:
        """Write ``name``, the pointer to the row of ``base`` at this end of the edge."""
        self.add(f"{name} = {base} + tl.load({ends} + edge{self._edge_mask}) * {width}")

    def load(self, name: str, base: str, offset: int) -> None:
        """Write the load of one number per channel; 0 beyond the last channel."""
        mask = masked(self._there, self._narrow)
        self.add(f"{name} = tl.load({base} + {offset}{mask}{', other=0.0' if mask else ''}).to(tl.{self.scalar})")

    def load_harmonics(self, columns: Sequence[int], width: int) -> None:
        """Write ``y_j``, the harmonics of ``edge``, the same for all channels."""
        self.add(f"harmonics_row = harmonics + edge * {width}")
        for j in columns:
            self.add(f"y_{j} = tl.load(harmonics_row + {j}{self._edge_mask}).to(tl.{self.scalar})")

    def edge_weights(self, width: int) -> None:
        """Write the source of the ``width`` weights of ``edge``."""
        self.add(f"weight_row = weights + edge * {width}")

    def load_weight(self, start: int) -> None:
        """Write ``weight``, one per channel, of the path whose weights begin in column ``start``."""
        self.load("weight", "weight_row + channel", start)

    def store(self, base: str, offset: int, value: str) -> None:
        """Write the store of one number per channel."""
        self.add(f"tl.store({base} + {offset}, {value}{masked(self._there, self._narrow)})")

    def store_sum(self, base: str, offset: int, value: str) -> None:
        """Write the store of a sum over edges."""
        self.store(base, offset, value)

    def begin_sums(self, columns: Sequence[int]) -> None:
        """Begin the sums over channels ``sum_j``, for each j in ``columns``."""
        for j in columns:
            self.zeros(f"sum_{j}")

    def begin_channel_sums(self, columns: Sequence[int]) -> None:
        """Begin the channels of some paths, which add to ``sum_j``."""

    def end_channel_sums(self, columns: Sequence[int]) -> None:
        """End the channels of these paths."""

    def store_edge_sum(self, pointer: str, column: int | None) -> None:
        """Write the store of the sum over channels of ``edge``; 0 if column is None."""
        self.add(f"tl.store({pointer}, {'0.0' if column is None else f'tl.sum(sum_{column}, axis=0)'})")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def masked(*conditions: str) -> str:
    """Return the mask argument of a load or store from its conditions; an empty string if there are none."""
    mask = " & ".join(filter(None, conditions))
    return f", mask={mask}" if mask else ""


def linear(terms: Sequence[tuple[float, str]]) -> str:
    """Return ``Σ factor · name`` with all digits of the factors; factors that are 1 up to rounding are omitted."""
    return " + ".join(name if abs(factor - 1) < 1e-15 else f"{factor!r} * {name}" for factor, name in terms)


def used_harmonics(coupled: Sequence[CoupledPath]) -> list[int]:
    """Return the columns of the harmonics that the paths read."""
    return sorted({j for member in coupled for entry in member.entries for j, _ in entry.terms})
