"""Generate the kernels of weighted sums at receivers, and of the softmax over the edges into a node."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

from geoeq.kernels.llvm.emit import Code, Scalar
from geoeq.kernels.llvm.kernel import Kernel, Row, function
from geoeq.kernels.segments import Blocks

__all__ = ["softmax_gradient_kernel", "softmax_kernel", "sum_edge_kernel", "sum_kernel"]


class _Run(NamedTuple):
    """Consecutive columns that belong to one head."""

    start: int
    length: int
    head: int


def _runs(blocks: Blocks, heads: int) -> list[_Run]:
    """Return the runs of all columns; within a block, each head has equally many channels."""
    runs: list[_Run] = []
    lengths = [channels // heads for rows, channels in blocks for _ in range(rows * heads)]
    for n, (end, length) in enumerate(zip(accumulate(lengths), lengths, strict=True)):
        head, last = n % heads, runs[-1] if runs else None
        if last is not None and last.head == head:
            runs[-1] = _Run(last.start, last.length + length, head)
        else:
            runs.append(_Run(end - length, length, head))
    return runs


def _width(blocks: Blocks) -> int:
    return sum(rows * channels for rows, channels in blocks)


def _edges_of(code: Code, node: str) -> tuple[str, str]:
    return code.load_index("%row_pointers", node), code.load_index("%row_pointers", code.add(node, 1))


def sum_kernel(blocks: Blocks, heads: int, scalar: Scalar, lanes: int) -> Kernel:
    """Return the kernel of ``out_n,d = Σ_e w_e,h(d) v_e,d`` over the edges e into node n.

    Pointers: values [E, D], weights [E, H], row_pointers [N + 1], and the result [N, D]. Rows are nodes.
    """
    code, width = Code(scalar, lanes), _width(blocks)
    with code.loop("%first", "%last") as node:
        out = Row(code, "%out", node, width)
        code.zero(out.base, width)
        with code.loop(*_edges_of(code, node)) as edge:
            values, weights = Row(code, "%values", edge, width), Row(code, "%weights", edge, heads)
            for run in _runs(blocks, heads):
                weight = code.splat(code.load_scalar(weights.base, run.head))
                for column in code.vectors(run.length):
                    target = out.at(column)
                    total = code.fused(weight, code.load(values.at(column), run.start), code.load(target, run.start))
                    code.store(total, target, run.start)
    return function("weighted_sum", code, ["values", "weights", "row_pointers", "out"])


def sum_edge_kernel(
    blocks: Blocks, heads: int, by_values: bool, by_weights: bool, scalar: Scalar, lanes: int
) -> Kernel:
    """Return the kernel of each edge's gradients: by values ``w_e,h(d) g_n,d``, by weights ``Σ_d v_e,d g_n,d`` over h's
    columns.

    Pointers: values, weights, cotangent g [N, D], receiver [E], and the results by values [E, D] and by weights [E, H];
    one that is not requested is not accessed. Rows are edges.
    """
    code, width = Code(scalar, lanes), _width(blocks)
    head_sums = code.scratch(heads * lanes)
    with code.loop("%first", "%last") as edge:
        values, weights = Row(code, "%values", edge, width), Row(code, "%weights", edge, heads)
        g = Row(code, "%g", code.load_index("%receiver", edge), width)
        value_gradients = Row(code, "%by_values", edge, width)
        if by_weights:
            code.zero(head_sums, heads * lanes)
        for run in _runs(blocks, heads):
            weight = code.splat(code.load_scalar(weights.base, run.head)) if by_values else ""
            for column in code.vectors(run.length):
                cotangent = code.load(g.at(column), run.start)
                if by_values:
                    code.store(code.times(weight, cotangent), value_gradients.at(column), run.start)
                if by_weights:
                    vector = code.load(values.at(column), run.start)
                    with code.whole():  # sums have all lanes; those without a column hold zeros
                        before = code.load(head_sums, run.head * lanes)
                        code.store(code.fused(vector, cotangent, before), head_sums, run.head * lanes)
        if by_weights:
            sums = Row(code, "%by_weights", edge, heads).base
            for head in range(heads):
                code.store_scalar(code.sum(code.load(head_sums, head * lanes)), sums, head)
    return function("weighted_sum_edge", code, ["values", "weights", "g", "receiver", "by_values", "by_weights"])


def softmax_kernel(heads: int, scalar: Scalar, lanes: int) -> Kernel:
    """Return the kernel of the softmax over the edges into each node; the maximum is subtracted to avoid overflow.

    Pointers: scores [E, H], row_pointers [N + 1], and the result [E, H]. Rows are nodes.
    """
    code = Code(scalar, lanes)
    maximum, total = code.scratch(lanes), code.scratch(lanes)
    with code.loop("%first", "%last") as node:
        begin, end = _edges_of(code, node)
        for head in code.vectors(heads):
            with code.whole():
                code.store(code.constant(-math.inf), maximum, 0)
                code.store(code.constant(0.0), total, 0)
            with code.loop(begin, end) as edge:
                scores = code.load(Row(code, "%scores", edge, heads).at(head), 0)
                code.store(code.larger(code.load(maximum, 0), scores), maximum, 0)
            with code.loop(begin, end) as edge:
                scores = code.load(Row(code, "%scores", edge, heads).at(head), 0)
                weight = code.exponential(code.minus(scores, code.load(maximum, 0)))
                code.store(weight, Row(code, "%out", edge, heads).at(head), 0)
                code.store(code.scaled(None, weight, code.load(total, 0)), total, 0)
            with code.loop(begin, end) as edge:
                target = Row(code, "%out", edge, heads).at(head)
                code.store(code.over(code.load(target, 0), code.load(total, 0)), target, 0)
    return function("softmax", code, ["scores", "row_pointers", "out"])


def softmax_gradient_kernel(heads: int, scalar: Scalar, lanes: int) -> Kernel:
    """Return the kernel of ``a (c - Σ a c)``, with the sum over the edges into the same node.

    Pointers: softmax a and cotangent c [E, H], row_pointers [N + 1], and the result [E, H]. Rows are nodes.
    """
    code = Code(scalar, lanes)
    total = code.scratch(lanes)
    with code.loop("%first", "%last") as node:
        begin, end = _edges_of(code, node)
        for head in code.vectors(heads):
            with code.whole():
                code.store(code.constant(0.0), total, 0)
            with code.loop(begin, end) as edge:
                softmax = code.load(Row(code, "%softmax", edge, heads).at(head), 0)
                cotangent = code.load(Row(code, "%cotangent", edge, heads).at(head), 0)
                code.store(code.fused(softmax, cotangent, code.load(total, 0)), total, 0)
            with code.loop(begin, end) as edge:
                softmax = code.load(Row(code, "%softmax", edge, heads).at(head), 0)
                cotangent = code.load(Row(code, "%cotangent", edge, heads).at(head), 0)
                gradient = code.times(softmax, code.minus(cotangent, code.load(total, 0)))
                code.store(gradient, Row(code, "%out", edge, heads).at(head), 0)
    return function("softmax_gradient", code, ["softmax", "cotangent", "row_pointers", "out"])
