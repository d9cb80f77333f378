"""The softmax over the edges into each node, and its derivative: a program does all edges of a node.

Edges of a node are read anew in each of the passes, from the cache: memory is read and written once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from geoeq.kernels.triton.kernel import Kernel, Tile
from geoeq.kernels.triton.text import Text

__all__ = ["softmax_gradient_kernel", "softmax_kernel"]

#: Numbers of a program, its edges times heads: two of a thread, of four warps.
_NUMBERS = 256


def _tile(heads: int) -> Tile:
    wide = 1 << (heads - 1).bit_length()
    edges = max(1, min(64, _NUMBERS // wide))
    return Tile(wide, max(1, wide * edges // 64), edges)


@contextlib.contextmanager
def _node(text: Text, tile: Tile, name: str, arguments: tuple[str, ...]) -> Iterator[None]:
    """A function of which each program does a node."""
    with text.function(name, arguments):
        text.row_and_task(1)
        text.add("begin = tl.load(row_pointers + row)")
        text.add("end = tl.load(row_pointers + row + 1)")
        text.add(f"head = tl.arange(0, {tile.channels})[None, :]")
        yield


@contextlib.contextmanager
def _edges(text: Text, tile: Tile, heads: int, beyond: str, *loaded: str) -> Iterator[None]:
    """A pass over the edges of a node, some of them at once: what is ``loaded``, and ``beyond`` where are no more."""
    with text.inside(f"for at in range(begin, end, {tile.edges})"):
        text.add(f"edge = at + tl.arange(0, {tile.edges})[:, None]")
        text.add(f"there = (edge < end) & (head < {heads})")
        for name in loaded:
            place = f"{name} + edge * {heads} + head"
            text.add(f"{name}_here = tl.load({place}, mask=there, other=0.0).to(tl.{text.scalar})")
            text.add(f"{name}_here = tl.where(edge < end, {name}_here, {beyond})")
        yield


def softmax_kernel(heads: int, scalar: str) -> Kernel:
    """``exp(s_e - max) / Σ exp(s_e' - max)`` over the edges e' into the same node, of each head.

    Arguments: scores [E, H], row_pointers [N + 1], and the result [E, H].
    """
    tile = _tile(heads)
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
    """``a_e (c_e - Σ a_e' c_e')`` over the edges e' into the same node, of each head.

    Arguments: the softmax a [E, H], its cotangent c [E, H], row_pointers [N + 1], and the result [E, H].
    """
    tile = _tile(heads)
    text, arguments = Text(scalar, tile.channels), ("softmax", "cotangent", "row_pointers", "by_scores")
    with _node(text, tile, "segment_softmax_gradient", arguments):
        text.add(f"total = tl.zeros([{tile.edges}, {tile.channels}], tl.{scalar})")
        with _edges(text, tile, heads, "0.0", "softmax", "cotangent"):
            text.add("total += softmax_here * cotangent_here")
        text.add("total = tl.sum(total, axis=0, keep_dims=True)")
        with _edges(text, tile, heads, "0.0", "softmax", "cotangent"):
            place = f"by_scores + edge * {heads} + head"
            text.add(f"tl.store({place}, softmax_here * (cotangent_here - total), mask=there)")
    return Kernel("segment_softmax_gradient", str(text), arguments, tile, 1, 1, 0)
