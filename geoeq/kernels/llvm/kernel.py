"""A compiled function's text: what all kernels have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoeq.kernels.llvm.emit import Code

__all__ = ["Kernel", "Row", "function"]


@dataclass(frozen=True)
class Kernel:
    """A function in LLVM's language: pointers, then the rows of the output, the first row and the one after the last.

    Attributes:
        name: of the function.
        text: of the module.
        pointers: how many it takes.
    """

    name: str
    text: str
    pointers: int


class Row:
    """The numbers of an edge or node: vectors of channels at the places of a description."""

    def __init__(self, code: Code, base: str, row: str, width: int) -> None:
        self.code, self.base = code, code.address(base, code.multiply(row, width))

    def at(self, channel: str) -> str:
        return self.code.address(self.base, channel)


def function(name: str, code: Code, pointers: Sequence[str]) -> Kernel:
    """What was written to ``code`` as the body of a function of these pointers."""
    numbers = [f"i64 %{number}" for number in ("rows", "first", "last")]
    arguments = ", ".join([*(f"ptr noalias %{pointer}" for pointer in pointers), *numbers])
    lines = [f"define void @{name}({arguments}) {{", "entry:", *code.lines, "  ret void", "}", *sorted(code.intrinsics)]
    return Kernel(name, "\n".join(lines) + "\n", len(pointers))
