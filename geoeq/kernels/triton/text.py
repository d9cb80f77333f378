"""The text of Triton functions, line by line."""

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
    """Functions of a module that take one edge after another; ``TileText`` takes several at once.

    Attributes:
        scalar: "float32" or "float64", in which is computed; numbers in memory may be shorter.
        channels: of one program, a power of two.
        lines: what was written.
        weights: arguments that the weights of an edge come from.
    """

    scalar: str
    channels: int
    lines: list[str] = field(default_factory=lambda: [_HEAD])
    weights: tuple[str, ...] = ("weights",)
    _depth: int = 0
    _narrow: str = ""  # where there are no more channels, which these are
    _there: str = ""  # where there are no more edges, which these are

    @property
    def shape(self) -> str:
        """Of a number for each channel."""
        return f"[{self.channels}]"

    @property
    def _of_edge(self) -> str:
        return f"{masked(self._there)}, other=0" if self._there else ""

    def copies(self, tile: Tile) -> int:
        """Registers of a thread that a number for each channel takes in the smallest tile, in words."""
        return 1

    def at_once(self, paths: int) -> int:
        """How many of the paths go through one loop over edges."""
        return paths

    def add(self, line: str) -> None:
        """A line of the function or loop that is being written."""
        self.lines.append(f"{'    ' * self._depth}{line}")

    @contextlib.contextmanager
    def inside(self, head: str) -> Iterator[None]:
        """What is added within the block stands below ``head``."""
        self.add(f"{head}:")
        self._depth += 1
        yield
        self._depth -= 1

    @contextlib.contextmanager
    def function(self, name: str, arguments: Sequence[str], decorator: str = "@triton.jit") -> Iterator[None]:
        """A function of the module."""
        self.lines.append("")
        self.add(decorator)
        with self.inside(f"def {name}({', '.join(arguments)})"):
            yield
        self.lines.append("")

    def row_and_task(self, tasks: int) -> None:
        """Which of the rows, and of the ``tasks`` that share a row, the program does: those of a row in succession."""
        self.add(f"row = (tl.program_id(0) // {tasks}).to(tl.int64)")
        self.add(f"task = tl.program_id(0) % {tasks}")

    @contextlib.contextmanager
    def edges(self, listed: bool = False) -> Iterator[None]:
        """The loop over edges from ``begin`` to ``end``, of those in ``order`` if they are ``listed``."""
        with self.inside("for place in range(begin, end)"):
            self.add("edge = tl.load(order + place)" if listed else "edge = place")
            yield

    def lanes(self, first: str, count: int) -> None:
        """``channel``: those of a program from ``first`` on, masked where a block has no whole number of such."""
        self.add(f"channel = {first} + tl.arange(0, {self.channels})")
        self._narrow = "mask" if count % self.channels else ""
        if self._narrow:
            self.add(f"mask = channel < {count}")

    def zeros(self, name: str) -> None:
        """A sum for each channel."""
        self.add(f"{name} = tl.zeros({self.shape}, tl.{self.scalar})")

    def row(self, name: str, base: str, ends: str, width: int) -> None:
        """``name``: where the row of ``base`` begins that the edge leads to."""
        self.add(f"{name} = {base} + tl.load({ends} + edge{self._of_edge}) * {width}")

    def load(self, name: str, base: str, offset: int) -> None:
        """A number for each channel; 0 beyond the last one."""
        mask = masked(self._there, self._narrow)
        self.add(f"{name} = tl.load({base} + {offset}{mask}{', other=0.0' if mask else ''}).to(tl.{self.scalar})")

    def load_harmonics(self, columns: Sequence[int], width: int) -> None:
        """``y_j`` of ``edge``, one number for all channels."""
        self.add(f"harmonics_row = harmonics + edge * {width}")
        for j in columns:
            self.add(f"y_{j} = tl.load(harmonics_row + {j}{self._of_edge}).to(tl.{self.scalar})")

    def edge_weights(self, width: int) -> None:
        """What the weights of ``edge``, of which there are ``width``, are found from."""
        self.add(f"weight_row = weights + edge * {width}")

    def load_weight(self, start: int) -> None:
        """``weight`` of each channel, of the path whose weights begin in column ``start``."""
        self.load("weight", "weight_row + channel", start)

    def store(self, base: str, offset: int, value: str) -> None:
        """The numbers of all channels that there are."""
        self.add(f"tl.store({base} + {offset}, {value}{masked(self._there, self._narrow)})")

    def store_sum(self, base: str, offset: int, value: str) -> None:
        """A sum over edges."""
        self.store(base, offset, value)

    def begin_sums(self, columns: Sequence[int]) -> None:
        """Before ``sum_j``, over channels, are added to, for each j in ``columns``."""
        for j in columns:
            self.zeros(f"sum_{j}")

    def begin_channel_sums(self, columns: Sequence[int]) -> None:
        """Before the channels of some paths, which add to ``sum_j``."""

    def end_channel_sums(self, columns: Sequence[int]) -> None:
        """After them."""

    def store_edge_sum(self, place: str, column: int | None) -> None:
        """The sum over channels for ``edge``; 0 where there is none."""
        self.add(f"tl.store({place}, {'0.0' if column is None else f'tl.sum(sum_{column}, axis=0)'})")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def masked(*conditions: str) -> str:
    """The argument of a load or store that says which numbers there are; nothing where no condition is given."""
    given = " & ".join(filter(None, conditions))
    return f", mask={given}" if given else ""


def linear(terms: Sequence[tuple[float, str]]) -> str:
    """``Σ factor · name``, every digit of the factors kept, but for a 1 that was rounded on its way here."""
    return " + ".join(name if abs(factor - 1) < 1e-15 else f"{factor!r} * {name}" for factor, name in terms)


def used_harmonics(coupled: Sequence[CoupledPath]) -> list[int]:
    """Columns of the harmonics that the paths read."""
    return sorted({j for member in coupled for entry in member.entries for j, _ in entry.terms})
