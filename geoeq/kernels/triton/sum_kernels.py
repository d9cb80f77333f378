"""Generate the kernels of weighted sums at receivers, of the softmax over the edges into a node, and their gradients.

A row of values consists of blocks side by side, each [rows, channels]; channels are divided among H heads in order. A
sum reads each number once, and only gradients are written to arrays that have a row per edge. In a softmax one program
computes all edges of a node; it reads them again in each pass, from the cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import groupby

from geoeq.kernels.segments import Blocks
from geoeq.kernels.triton.kernel import Kernel, Tile
from geoeq.kernels.triton.text import Text, masked

__all__ = [
    "softmax_gradient_kernel",
    "softmax_kernel",
    "sum_by_values_kernel",
    "sum_by_weights_kernel",
    "sum_kernel",
]

#: Maximum number of columns of a program, and its number of entries: four per thread, with four warps.
_COLUMNS, _NUMBERS = 128, 512

#: Number of entries of a softmax program, its edges times heads: two per thread, with four warps.
_SCORES = 256

_COUNTED = '@triton.jit(do_not_specialize=["count"])'


def _power(number: int) -> int:
    """Return the smallest power of two that is not smaller."""
    return 1 << (number - 1).bit_length()


def _tile(columns: int) -> Tile:
    """Return the tile: few edges if there are many columns, more if there are few (the 3 of a position)."""
    wide = min(_COLUMNS, _power(columns))
    edges = min(32, _NUMBERS // wide)
    return Tile(wide, max(1, wide * edges // 128), edges)


def _joined(blocks: Blocks) -> list[tuple[int, int, int]]:
    """Return first column, rows and channels of blocks, joining consecutive ones with equally many channels."""
    joined, start = [], 0
    for channels, group in groupby(blocks, key=lambda block: block[1]):
        rows = sum(rows for rows, _ in group)
        joined.append((start, rows, channels))
        start += rows * channels
    return joined


def _dim(blocks: Blocks) -> int:
    return sum(rows * channels for rows, channels in blocks)


def _columns(text: Text, blocks: Blocks, heads: int, task: str) -> None:
    """Write ``column``, the columns of a program, and ``head``, the head of each."""
    text.add(f"column = {task} * {text.channels} + tl.arange(0, {text.channels})[None, :]")
    text.add("head = tl.zeros_like(column)")
    for start, _, channels in _joined(blocks) if heads > 1 else ():
        text.add(f"head = tl.where(column >= {start}, (column - {start}) % {channels} // {channels // heads}, head)")


def sum_kernel(blocks: Blocks, heads: int, scalar: str) -> Kernel:
    """Return the kernel of ``out_nd = Σ_e weights_e,head(d) values_ed`` over the edges into node n.

    Each lane adds its edges in their order.

    Arguments: values [E, D], weights [E, H], row_pointers [N + 1], and the result [N, D].
    """
    dim = _dim(blocks)
    tile = _tile(dim)
    text, tasks = Text(scalar, tile.channels), -(-dim // tile.channels)
    arguments = "values", "weights", "row_pointers", "out"
    narrow = f"(column < {dim})" if dim % tile.channels else ""
    with text.function("weighted_sum", arguments):
        text.row_and_task(tasks)
        _columns(text, blocks, heads, "task")
        text.add("begin = tl.load(row_pointers + row)")
        text.add("end = tl.load(row_pointers + row + 1)")
        text.add(f"total = tl.zeros([{tile.edges}, {tile.channels}], tl.{scalar})")
        with text.inside(f"for at in range(begin, end, {tile.edges})"):
            text.add(f"edge = at + tl.arange(0, {tile.edges})[:, None]")
            mask = masked("(edge < end)", narrow)
            text.add(f"weight = tl.load(weights + edge * {heads} + head{mask}, other=0.0).to(tl.{scalar})")
            text.add(f"total += weight * tl.load(values + edge * {dim} + column{mask}, other=0.0).to(tl.{scalar})")
        text.add("total = tl.sum(total, axis=0, keep_dims=True)")
        text.add(f"tl.store(out + row * {dim} + column, total{masked(narrow)})")
    return Kernel("weighted_sum", str(text), arguments, tile, 1, tasks, 0)


def sum_by_values_kernel(blocks: Blocks, heads: int, scalar: str) -> Kernel:
    """Return the kernel of ``weights_e,head(d) g_nd`` of each edge e into node n.

    Arguments: weights [E, H], cotangent g [N, D], receiver [E], the result [E, D], and the number of edges.
    """
    dim = _dim(blocks)
    tile = _tile(dim)
    text, tasks = Text(scalar, tile.channels), -(-dim // tile.channels)
    arguments = "weights", "g", "receiver", "by_values", "count"
    with text.function("sum_by_values", arguments, _COUNTED):
        text.row_and_task(tasks)
        _columns(text, blocks, heads, "task")
        text.add(f"edge = row * {tile.edges} + tl.arange(0, {tile.edges})[:, None]")
        text.add("there = edge < count")
        mask = masked("there", f"(column < {dim})" if dim % tile.channels else "")
        text.add("node = tl.load(receiver + edge, mask=there, other=0)")
        text.add(f"weight = tl.load(weights + edge * {heads} + head{mask}, other=0.0).to(tl.{scalar})")
        text.add(f"product = weight * tl.load(g + node * {dim} + column{mask}, other=0.0).to(tl.{scalar})")
        text.add(f"tl.store(by_values + edge * {dim} + column, product{mask})")
    return Kernel("sum_by_values", str(text), arguments, tile, tile.edges, tasks, 0)


def sum_by_weights_kernel(blocks: Blocks, heads: int, scalar: str) -> Kernel:
    """Return the kernel of ``Σ_d values_ed g_nd`` over the columns d of each head, of each edge e into node n.

    Arguments: values [E, D], cotangent g [N, D], receiver [E], the result [E, H], and the number of edges.
    """
    dim, wide = _dim(blocks), _power(heads)
    most = max(1, _NUMBERS // wide)  # channels of a head read at once
    lanes = min(most, max(_power(channels // heads) for _, channels in blocks))
    edges = max(1, min(128, _NUMBERS // (wide * lanes)))
    tile = Tile(wide * lanes, max(1, edges * wide * lanes // 128), edges)
    text, arguments = Text(scalar, tile.channels), ("values", "g", "receiver", "by_weights", "count")
    with text.function("sum_by_weights", arguments, _COUNTED):
        text.add(f"edge = tl.program_id(0).to(tl.int64) * {edges} + tl.arange(0, {edges})[:, None]")
        text.add(f"head = tl.arange(0, {wide})[None, :]")
        text.add(f"there = (edge < count) & (head < {heads})")
        text.add("g_row = g + tl.load(receiver + edge, mask=edge < count, other=0) * " + str(dim))
        text.add(f"total = tl.zeros([{edges}, {wide}], tl.{scalar})")
        for start, rows, channels in _joined(blocks):
            each = channels // heads
            lanes = min(most, _power(each))
            text.add(f"part = tl.zeros([{edges}, {wide}, {lanes}], tl.{scalar})")
            text.add(f"lane = tl.arange(0, {lanes})[None, None, :]")
            with (
                text.inside(f"for first in range({start}, {start + rows * channels}, {channels})"),
                text.inside(f"for begin in range(0, {each}, {lanes})"),
            ):
                text.add(f"column = first + (head * {each} + begin)[:, :, None] + lane")
                mask = masked("there[:, :, None]", f"(begin + lane < {each})" if each % lanes else "")
                text.add(f"value = tl.load((values + edge * {dim})[:, :, None] + column{mask}, other=0.0)")
                text.add(f"cotangent = tl.load(g_row[:, :, None] + column{mask}, other=0.0)")
                text.add(f"part += value.to(tl.{scalar}) * cotangent.to(tl.{scalar})")
            text.add("total += tl.sum(part, axis=2)")
        text.add(f"tl.store(by_weights + edge * {heads} + head, total, mask=there)")
    return Kernel("sum_by_weights", str(text), arguments, tile, edges, 1, 0)


def _softmax_tile(heads: int) -> Tile:
    wide = _power(heads)
    edges = max(1, min(64, _SCORES // wide))
    return Tile(wide, max(1, wide * edges // 64), edges)


@contextlib.contextmanager
def _node(text: Text, tile: Tile, name: str, arguments: tuple[str, ...]) -> Iterator[None]:
    """Write a function whose programs compute one node each."""
    with text.function(name, arguments):
        text.row_and_task(1)
        text.add("begin = tl.load(row_pointers + row)")
        text.add("end = tl.load(row_pointers + row + 1)")
        text.add(f"head = tl.arange(0, {tile.channels})[None, :]")
        yield


@contextlib.contextmanager
def _edges(text: Text, tile: Tile, heads: int, beyond: str, *loaded: str) -> Iterator[None]:
    """Write a pass over the edges of a node, several at once; loads give ``beyond`` after the last edge."""
    with text.inside(f"for at in range(begin, end, {tile.edges})"):
        text.add(f"edge = at + tl.arange(0, {tile.edges})[:, None]")
        text.add(f"there = (edge < end) & (head < {heads})")
        for name in loaded:
            pointer = f"{name} + edge * {heads} + head"
            text.add(f"{name}_here = tl.load({pointer}, mask=there, other=0.0).to(tl.{text.scalar})")
            text.add(f"{name}_here = tl.where(edge < end, {name}_here, {beyond})")
        yield


def softmax_kernel(heads: int, scalar: str) -> Kernel:
    """Return the kernel of ``exp(s_e - max) / Σ exp(s_e' - max)``, over the edges e' into the same node, of each head.

    Arguments: scores [E, H], row_pointers [N + 1], and the result [E, H].
    """
    tile = _softmax_tile(heads)
    text, arguments = Text(scalar, tile.channels), ("scores", "row_pointers", "softmax")
    shape = f"[{tile.edges}, {tile.channels}]"
    with _node(text, tile, "segment_softmax", arguments):
        text.add(f"top = tl.full({shape}, float('-inf'), tl.{scalar})")
        with _edges(text, tile, heads, "float('-inf')", "scores"):
            text.add("top = tl.maximum(top, scores_here)")
        text.add("top = tl.max(top, axis=0, keep_dims=True)")
        text.add(f"total = tl.zeros({shape}, tl.{scalar})")
        with _edges(text, tile, heads, "float('-inf')", "scores"):
            text.add("total += tl.exp(scores_here - top)")
        text.add("total = tl.sum(total, axis=0, keep_dims=True)")
        with _edges(text, tile, heads, "float('-inf')", "scores"):
            text.add(f"tl.store(softmax + edge * {heads} + head, tl.exp(scores_here - top) / total, mask=there)")
    return Kernel("segment_softmax", str(text), arguments, tile, 1, 1, 0)


def softmax_gradient_kernel(heads: int, scalar: str) -> Kernel:
    """Return the kernel of ``a_e (c_e - Σ a_e' c_e')``, over the edges e' into the same node, of each head.

    Arguments: the softmax a [E, H], its cotangent c [E, H], row_pointers [N + 1], and the result [E, H].
    """
    tile = _softmax_tile(heads)
    text, arguments = Text(scalar, tile.channels), ("softmax", "cotangent", "row_pointers", "by_scores")
    with _node(text, tile, "segment_softmax_gradient", arguments):
        text.add(f"total = tl.zeros([{tile.edges}, {tile.channels}], tl.{scalar})")
        with _edges(text, tile, heads, "0.0", "softmax", "cotangent"):
            text.add("total += softmax_here * cotangent_here")
        text.add("total = tl.sum(total, axis=0, keep_dims=True)")
        with _edges(text, tile, heads, "0.0", "softmax", "cotangent"):
            pointer = f"by_scores + edge * {heads} + head"
            text.add(f"tl.store({pointer}, softmax_here * (cotangent_here - total), mask=there)")
    return Kernel("segment_softmax_gradient", str(text), arguments, tile, 1, 1, 0)
