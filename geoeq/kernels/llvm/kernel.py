"""The text of a compiled function, and helpers shared by all kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geoeq.kernels.llvm.emit import Code

__all__ = ["Kernel", "Row", "function"]


@dataclass(frozen=True)
class Kernel:
    """A function in LLVM assembly; its arguments are pointers, the number of rows, and the range of rows to compute.

    Attributes:
        name: name of the function.
        text: text of the module.
        pointers: number of pointers among the arguments.
    """

    name: str
    text: str
    pointers: int


class Row:
    """Address of the row of an edge or node, in an array with ``width`` columns."""

    def __init__(self, code: Code, base: str, row: str, width: int) -> None:
        self.code, self.base = code, code.address(base, code.multiply(row, width))

    def at(self, channel: str) -> str:
        return self.code.address(self.base, channel)


def function(name: str, code: Code, pointers: Sequence[str]) -> Kernel:
    """Return the kernel whose body is ``code``, as a function of these pointers."""
    numbers = [f"i64 %{number}" for number in ("rows", "first", "last")]
    arguments = ", ".join([*(f"ptr noalias %{pointer}" for pointer in pointers), *numbers])
    lines = [f"define void @{name}({arguments}) {{", "entry:", *code.lines, "  ret void", "}", *sorted(code.intrinsics)]
    return Kernel(name, "\n".join(lines) + "\n", len(pointers))
