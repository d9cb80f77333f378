"""Matrix products that compute the messages of a fully connected tensor product, for some senders and their edges.

A sender has ``A[h, M] = Σ_i W[i, h, f, o] x[l, i]``, where M is the index of (k, l, f, o) in the plan; its edges have
the terms ``T = h A``; and the message is ``m[k, o] = Σ_{l f} B[l f, k] T[k, l, f, o]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geoeq.kernels.operators.path_plan import PathPlan

__all__ = [
    "Chunk",
    "add_node_gradients",
    "basis_gradient",
    "chunks",
    "matrices",
    "messages",
    "terms_gradient",
]

#: Size in bytes of the matrices of the senders of a chunk: small enough for a cache, or enough to fill a GPU.
_CPU_BYTES, _DEVICE_BYTES = 4 * 2**20, 256 * 2**20


@dataclass(frozen=True)
class Chunk:
    """Some senders and their edges, as a table with one row per sender."""

    nodes: slice
    edges: slice
    slots: Tensor | None  # index of each edge in the table; None if all senders have equally many edges
    shape: tuple[int, int]

    def pad(self, values: Tensor) -> Tensor:
        """Return the values [E, A] of these edges as a table [n, D, A]."""
        rows = values[self.edges]
        if self.slots is not None:
            full = values.new_zeros(self.shape[0] * self.shape[1], values.shape[1])
            rows = full.index_copy_(0, self.slots, rows)
        return rows.reshape(*self.shape, values.shape[1])

    def put(self, result: Tensor, table: Tensor) -> None:
        """Write a table [n, D, A] to the rows of these edges in ``result``."""
        rows = table.flatten(0, 1)
        result[self.edges] = rows if self.slots is None else rows.index_select(0, self.slots)


def chunks(plan: PathPlan, hidden: Tensor, pointers: Tensor) -> Iterator[Chunk]:
    """Yield all senders that have edges, in chunks."""
    limit = _CPU_BYTES if hidden.device.type == "cpu" else _DEVICE_BYTES
    step = max(1, limit // (hidden.element_size() * max(1, hidden.shape[1] * plan.middle)))
    starts = pointers.tolist()
    for first in range(0, len(starts) - 1, step):
        last = min(first + step, len(starts) - 1)
        counts = [end - start for start, end in zip(starts[first:last], starts[first + 1 : last + 1], strict=True)]
        most, edges = max(counts), slice(starts[first], starts[last])
        if most == 0:
            continue
        slots = None
        if most * len(counts) != sum(counts):
            begins = pointers[first : last + 1] - pointers[first]
            edge = torch.arange(sum(counts), device=pointers.device)
            row = torch.repeat_interleave(begins.diff(), output_size=len(edge))
            slots = edge + most * row - begins.index_select(0, row)
        yield Chunk(slice(first, last), edges, slots, (last - first, most))


def matrices(plan: PathPlan, x: Tensor, weight: Tensor) -> Tensor:
    """Return A of each sender.

    Shapes:
        x: [n, X]. weight: [W]. Returns [n, H, M].
    """
    nodes, width = x.shape[0], plan.hidden
    result = x.new_empty(nodes, width, plan.middle)
    for pair in plan.pairs:
        matrix = weight[pair.weight].view(pair.channels_in, width * pair.columns)
        product = x[:, pair.x].reshape(nodes * pair.dim, pair.channels_in) @ matrix  # [n (2 l + 1), H f o]
        block = result[:, :, pair.middle].view(nodes, width, pair.dim, pair.columns)
        block.copy_(product.view(nodes, pair.dim, width, pair.columns).transpose(1, 2))
    return result


def messages(plan: PathPlan, basis: Tensor, terms: Tensor) -> Tensor:
    """Return the messages m from B and T.

    Shapes:
        basis: [n, D, B]. terms: [n, D, M]. Returns [n, D, m].
    """
    result = terms.new_empty(*terms.shape[:2], plan.message_dim)
    basis, terms, rows = basis.flatten(0, 1), terms.flatten(0, 1), result.flatten(0, 1)
    for out in plan.outs:
        couplings = basis[:, out.basis].view(-1, out.rows, out.dim)
        block = rows[:, out.message].view(-1, out.dim, out.channels)
        block.copy_(torch.bmm(couplings.mT, terms[:, out.middle].view(-1, out.rows, out.channels)))
    return result


def basis_gradient(plan: PathPlan, terms: Tensor, cotangent: Tensor) -> Tensor:
    """Return the gradient of ``Σ m g`` with respect to B.

    Shapes:
        terms: [n, D, M]. cotangent: cotangent g, [n, D, m]. Returns [n, D, B].
    """
    result = terms.new_empty(*terms.shape[:2], plan.basis_dim)
    terms, cotangent, rows = terms.flatten(0, 1), cotangent.flatten(0, 1), result.flatten(0, 1)
    for out in plan.outs:
        g = cotangent[:, out.message].view(-1, out.dim, out.channels)
        block = rows[:, out.basis].view(-1, out.rows, out.dim)
        block.copy_(torch.bmm(terms[:, out.middle].view(-1, out.rows, out.channels), g.mT))
    return result


def terms_gradient(plan: PathPlan, basis: Tensor, cotangent: Tensor) -> Tensor:
    """Return the gradient of ``Σ m g`` with respect to T.

    Shapes:
        basis: [n, D, B]. cotangent: cotangent g, [n, D, m]. Returns [n, D, M].
    """
    result = basis.new_empty(*basis.shape[:2], plan.middle)
    basis, cotangent, rows = basis.flatten(0, 1), cotangent.flatten(0, 1), result.flatten(0, 1)
    for out in plan.outs:
        g = cotangent[:, out.message].view(-1, out.dim, out.channels)
        block = rows[:, out.middle].view(-1, out.rows, out.channels)
        block.copy_(torch.bmm(basis[:, out.basis].view(-1, out.rows, out.dim), g))
    return result


def add_node_gradients(
    plan: PathPlan,
    by_matrices: Tensor,
    factors: tuple[Tensor | None, Tensor | None],
    by_x: Tensor | None,
    by_weight: Tensor | None,
) -> None:
    """Add the gradients with respect to x and W, given the gradient with respect to A of some senders.

    Args:
        plan: plan of the tensor product.
        by_matrices: gradient with respect to A.
        factors: x and W; None for a factor whose counterpart gets no gradient.
        by_x: gradient with respect to x to add to; None if it is not requested.
        by_weight: gradient with respect to W to add to; None if it is not requested.

    Shapes:
        by_matrices: [n, H, M]. x, by_x: [n, X]. W, by_weight: [W].
    """
    nodes, width = by_matrices.shape[:2]
    x, weight = factors
    for pair in plan.pairs:
        part = by_matrices[:, :, pair.middle].view(nodes, width, pair.dim, pair.columns)
        part = part.transpose(1, 2).reshape(nodes * pair.dim, width * pair.columns)
        if by_x is not None and weight is not None:
            matrix = weight[pair.weight].view(pair.channels_in, width * pair.columns)
            by_x[:, pair.x] += (part @ matrix.T).view(nodes, -1)
        if by_weight is not None and x is not None:
            features = x[:, pair.x].reshape(nodes * pair.dim, pair.channels_in)
            by_weight[pair.weight].view(pair.channels_in, -1).addmm_(features.T, part)
