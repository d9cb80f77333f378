"""Emit LLVM assembly: the instructions that kernels over vectors of channels need."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["Code", "Scalar", "literal"]

#: Name of one of LLVM's floating-point types, "float" or "double".
Scalar = str


def literal(value: float, scalar: Scalar) -> str:
    """Return the exact constant: the bits of a double in hexadecimal, rounded to single precision first for a float."""
    if scalar == "float":
        value = struct.unpack("f", struct.pack("f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


@dataclass
class Code:
    """The body of one function, written instruction by instruction.

    Values are names such as ``%v7``; indices are 64-bit integers, pointers are opaque. Arithmetic is on vectors of
    ``lanes`` numbers, except for the methods under "Single numbers".

    Attributes:
        scalar: type of a number, "float" or "double".
        lanes: number of lanes of a vector.
        mask: mask of a partial vector; None if all lanes hold channels.
    """

    scalar: Scalar
    lanes: int
    lines: list[str] = field(default_factory=list)
    intrinsics: set[str] = field(default_factory=set)
    mask: str | None = None
    _count: int = 0
    _block: str = "entry"

    @property
    def vector(self) -> str:
        return f"<{self.lanes} x {self.scalar}>"

    @property
    def size(self) -> int:
        """Size of a number in bytes."""
        return 4 if self.scalar == "float" else 8

    @property
    def _suffix(self) -> str:
        return f"v{self.lanes}f{8 * self.size}"

    def value(self, text: str) -> str:
        """Write an instruction and return the new name of its value."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """Write an instruction that has no value."""
        self.lines.append(f"  {text}")

    # Indices and addresses

    def add(self, a: str, b: str | int) -> str:
        return a if b in (0, "0") else self.value(f"add nsw i64 {a}, {b}")

    def multiply(self, a: str, b: str | int) -> str:
        return a if b in (1, "1") else self.value(f"mul nsw i64 {a}, {b}")

    def address(self, base: str, index: str | int, kind: str | None = None) -> str:
        """Return the address of the number at an index, or of an integer if ``kind`` is "i64"."""
        return (
            base
            if index in (0, "0")
            else self.value(f"getelementptr inbounds {kind or self.scalar}, ptr {base}, i64 {index}")
        )

    def load_index(self, base: str, index: str | int) -> str:
        return self.value(f"load i64, ptr {self.address(base, index, 'i64')}, align 8")

    # Single numbers

    def load_scalar(self, base: str, index: str | int) -> str:
        return self.value(f"load {self.scalar}, ptr {self.address(base, index)}, align {self.size}")

    def store_scalar(self, number: str, base: str, index: str | int) -> None:
        self.do(f"store {self.scalar} {number}, ptr {self.address(base, index)}, align {self.size}")

    def plus(self, a: str, b: str) -> str:
        return self.value(f"fadd {self.scalar} {a}, {b}")

    def linear(self, terms: Sequence[tuple[float, str]]) -> str:
        """Return ``Σ c x`` of single numbers."""
        total = ""
        for factor, number in terms:
            constant = literal(factor, self.scalar)
            if total:
                total = self._fused(self.scalar, f"f{8 * self.size}", constant, number, total)
            else:
                total = self.value(f"fmul {self.scalar} {constant}, {number}")
        return total

    # Vectors of channels

    def load(self, base: str, index: str | int) -> str:
        pointer = self.address(base, index)
        if self.mask is None:
            return self.value(f"load {self.vector}, ptr {pointer}, align {self.size}")
        name = f"llvm.masked.load.{self._suffix}.p0"
        self.intrinsics.add(f"declare {self.vector} @{name}(ptr, <{self.lanes} x i1>, {self.vector})")
        return self.value(
            f"call {self.vector} @{name}(ptr align {self.size} {pointer}, <{self.lanes} x i1> {self.mask}, "
            f"{self.vector} zeroinitializer)"
        )

    def store(self, vector: str, base: str, index: str | int) -> None:
        pointer = self.address(base, index)
        if self.mask is None:
            self.do(f"store {self.vector} {vector}, ptr {pointer}, align {self.size}")
            return
        name = f"llvm.masked.store.{self._suffix}.p0"
        self.intrinsics.add(f"declare void @{name}({self.vector}, ptr, <{self.lanes} x i1>)")
        self.do(
            f"call void @{name}({self.vector} {vector}, ptr align {self.size} {pointer}, "
            f"<{self.lanes} x i1> {self.mask})"
        )

    def times(self, a: str, b: str) -> str:
        return self.value(f"fmul {self.vector} {a}, {b}")

    def fused(self, a: str, b: str, total: str | None) -> str:
        """Return ``a b + total``, or only the product if total is None."""
        return self.times(a, b) if total is None else self._fused(self.vector, self._suffix, a, b, total)

    def minus(self, a: str, b: str) -> str:
        return self.value(f"fsub {self.vector} {a}, {b}")

    def over(self, a: str, b: str) -> str:
        return self.value(f"fdiv {self.vector} {a}, {b}")

    def larger(self, a: str, b: str) -> str:
        return self._intrinsic("maxnum", a, b)

    def exponential(self, vector: str) -> str:
        return self._intrinsic("exp", vector)

    def _intrinsic(self, name: str, *vectors: str) -> str:
        name = f"llvm.{name}.{self._suffix}"
        self.intrinsics.add(f"declare {self.vector} @{name}({', '.join([self.vector] * len(vectors))})")
        return self.value(f"call {self.vector} @{name}({', '.join(f'{self.vector} {vector}' for vector in vectors)})")

    def scaled(self, weight: str | None, vector: str, total: str | None = None) -> str:
        """Return ``weight vector + total``; None means a weight of one, or a total of zero."""
        if weight is not None:
            return self.fused(weight, vector, total)
        return vector if total is None else self.value(f"fadd {self.vector} {vector}, {total}")

    def splat(self, number: str) -> str:
        """Return a vector with the number in every lane."""
        one = self.value(f"insertelement {self.vector} poison, {self.scalar} {number}, i64 0")
        return self.value(
            f"shufflevector {self.vector} {one}, {self.vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def constant(self, number: float) -> str:
        return f"<{', '.join([f'{self.scalar} {literal(number, self.scalar)}'] * self.lanes)}>"

    def sum(self, vector: str) -> str:
        """Return the sum of all lanes, added by halves, always in the same order."""
        name = f"llvm.vector.reduce.fadd.{self._suffix}"
        self.intrinsics.add(f"declare {self.scalar} @{name}({self.scalar}, {self.vector})")
        return self.value(f"call reassoc {self.scalar} @{name}({self.scalar} -0.0, {self.vector} {vector})")

    def _fused(self, kind: str, suffix: str, a: str, b: str, total: str) -> str:
        name = f"llvm.fmuladd.{suffix}"
        self.intrinsics.add(f"declare {kind} @{name}({kind}, {kind}, {kind})")
        return self.value(f"call {kind} @{name}({kind} {a}, {kind} {b}, {kind} {total})")

    # Memory and loops

    def zero(self, base: str, count: int) -> None:
        """Set ``count`` numbers to zero."""
        self.intrinsics.add("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        self.do(f"call void @llvm.memset.p0.i64(ptr {base}, i8 0, i64 {count * self.size}, i1 false)")

    def scratch(self, count: int) -> str:
        """Allocate ``count`` numbers on the stack; call it outside of loops."""
        return self.value(f"alloca [{count} x {self.scalar}], align 64")

    @contextlib.contextmanager
    def loop(self, first: str | int, last: str | int, step: int = 1) -> Iterator[str]:
        """Write a loop, and yield its index, from ``first`` to below ``last``."""
        self._count += 1
        name = f"loop{self._count}"
        before = self._block
        self.do(f"br label %{name}.head")
        self.lines.append(f"{name}.head:")
        self.do(f"%{name} = phi i64 [ {first}, %{before} ], [ %{name}.next, %{name}.end ]")
        self.do(f"%{name}.more = icmp slt i64 %{name}, {last}")
        self.do(f"br i1 %{name}.more, label %{name}.body, label %{name}.done")
        self._enter(f"{name}.body")
        yield f"%{name}"
        self.do(f"br label %{name}.end")
        self.lines.append(f"{name}.end:")
        self.do(f"%{name}.next = add nsw i64 %{name}, {step}")
        self.do(f"br label %{name}.head")
        self._enter(f"{name}.done")

    def _enter(self, block: str) -> None:
        self.lines.append(f"{block}:")
        self._block = block

    def vectors(self, count: int) -> Iterator[str]:
        """Yield the first index of each vector of ``count`` numbers: a loop over whole vectors, then a partial one."""
        whole = count - count % self.lanes
        if whole == self.lanes:
            yield "0"
        elif whole:
            with self.loop(0, whole, self.lanes) as first:
                yield first
        if count > whole:
            with self.partial(count - whole):
                yield str(whole)

    @contextlib.contextmanager
    def partial(self, channels: int) -> Iterator[None]:
        """Read and write only the first ``channels`` lanes of vectors."""
        bits = ["i1 true" if lane < channels else "i1 false" for lane in range(self.lanes)]
        self.mask = f"<{', '.join(bits)}>"
        yield
        self.mask = None

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Read and write all lanes, even within ``partial``."""
        mask, self.mask = self.mask, None
        yield
        self.mask = mask
