"""The text of Triton functions, line by line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from geoeq.kernels.coupled_paths import CoupledPath

__all__ = ["Text", "linear", "used_harmonics"]

_HEAD = "import triton\nimport triton.language as tl\n"


@dataclass
class Text:
    """Functions of a module.

    Attributes:
        scalar: "float32" or "float64", in which is computed; numbers in memory may be shorter.
        channels: of one program, a power of two.
        lines: what was written.
    """

    scalar: str
    channels: int
    lines: list[str] = field(default_factory=lambda: [_HEAD])
    _depth: int = 0
    _mask: str = ""

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

    def lanes(self, first: str, count: int) -> None:
        """``channel``: those of a program from ``first`` on, masked where a block has no whole number of such."""
        self.add(f"channel = {first} + tl.arange(0, {self.channels})")
        self._mask = ""
        if count % self.channels:
            self.add(f"mask = channel < {count}")
            self._mask = ", mask=mask"

    def zeros(self, name: str) -> None:
        """A sum for each channel."""
        self.add(f"{name} = tl.zeros([{self.channels}], tl.{self.scalar})")

    def load(self, name: str, base: str, offset: int) -> None:
        """A number for each channel; 0 beyond the last one."""
        other = f"{self._mask}, other=0.0" if self._mask else ""
        self.add(f"{name} = tl.load({base} + {offset}{other}).to(tl.{self.scalar})")

    def load_harmonics(self, columns: Sequence[int], width: int) -> None:
        """``y_j`` of ``edge``, one number for all channels."""
        self.add(f"harmonics_row = harmonics + edge * {width}")
        for j in columns:
            self.add(f"y_{j} = tl.load(harmonics_row + {j}).to(tl.{self.scalar})")

    def store(self, base: str, offset: int, value: str) -> None:
        """The numbers of all channels that there are."""
        self.add(f"tl.store({base} + {offset}, {value}{self._mask})")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def linear(terms: Sequence[tuple[float, str]]) -> str:
    """``Σ factor · name``, every digit of the factors kept, but for a 1 that was rounded on its way here."""
    return " + ".join(name if abs(factor - 1) < 1e-15 else f"{factor!r} * {name}" for factor, name in terms)


def used_harmonics(coupled: Sequence[CoupledPath]) -> list[int]:
    """Columns of the harmonics that the paths read."""
    return sorted({j for member in coupled for entry in member.entries for j, _ in entry.terms})
