"""Messages of the fully connected tensor product, without ever computing the weights of an edge.

With x the features of a sender, h the last hidden layer of an edge's radial network, W its last linear map and B the
couplings of an edge (Clebsch-Gordan times harmonics), the message for degree k is::

    m[e, k, o] = Σ_{l, f} B[e, l f, k] Σ_h h[e, h] Σ_i W[i, h, f, o] x[sender_e, l, i]

The weights ``h W`` of all edges would be the largest tensor by far. Therefore the sum over i comes first, once for each
*node*; a batched matrix product over the edges of each sender does the rest, a few senders at a time. The form is
linear in each of its factors: its derivatives of every order are sums of the same form with factors replaced. Second
derivatives are one operator, which computes each product once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor

from geoeq.derivatives import in_transform
from geoeq.kernels.backend import decomposed
from geoeq.kernels.operators.multilinear import multilinear
from geoeq.kernels.operators.path_forms import (
    Chunk,
    add_node_gradients,
    basis_gradient,
    chunks,
    matrices,
    messages,
    terms_gradient,
)
from geoeq.kernels.operators.path_plan import PathPlan
from geoeq.pointers import batch_from_ptr

__all__ = ["path_messages"]


@cache
def _plan(code: tuple[int, ...]) -> PathPlan:
    return PathPlan.decode(code)


def _messages(
    x: Tensor, hidden: Tensor, weight: Tensor, basis: Tensor, pointers: Tensor, code: Sequence[int]
) -> Tensor:
    plan = _plan(tuple(code))
    result = hidden.new_empty(hidden.shape[0], plan.message_dim)
    for chunk in chunks(plan, hidden, pointers):
        terms = torch.bmm(chunk.pad(hidden), matrices(plan, x[chunk.nodes], weight))
        chunk.put(result, messages(plan, chunk.pad(basis), terms))
    return result


def _results(factors: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor | None]:
    pairs = zip(factors, wanted, strict=True)
    return [torch.zeros_like(factor) if want else None for factor, want in pairs]


def _filled(results: Sequence[Tensor | None], like: Tensor) -> tuple[Tensor, ...]:
    return tuple(like.new_empty(0) if result is None else result for result in results)


def _gradients(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradients of ``Σ m · cotangent`` by the four factors; those not wanted are empty."""
    (x, hidden, weight, basis, cotangent), (pointers, code, wanted) = arguments[:5], arguments[5:]
    plan = _plan(tuple(code))
    by_x, by_hidden, by_weight, by_basis = results = _results((x, hidden, weight, basis), wanted)
    for chunk in chunks(plan, hidden, pointers):
        nodes, edges, g = x[chunk.nodes], chunk.pad(hidden), chunk.pad(cotangent)
        a = nodes.new_empty(0) if by_basis is None and by_hidden is None else matrices(plan, nodes, weight)
        if by_basis is not None:
            chunk.put(by_basis, basis_gradient(plan, torch.bmm(edges, a), g))
        if not any(wanted[:3]):
            continue
        by_terms = terms_gradient(plan, chunk.pad(basis), g)
        if by_hidden is not None:
            chunk.put(by_hidden, torch.bmm(by_terms, a.mT))
        if by_x is not None or by_weight is not None:
            by_matrices = torch.bmm(edges.mT, by_terms)  # [n, H, M]
            add_node_gradients(plan, by_matrices, (nodes, weight), _rows(by_x, chunk), by_weight)
    return _filled(results, x)


def _rows(node_values: Tensor | None, chunk: Chunk) -> Tensor | None:
    return None if node_values is None else node_values[chunk.nodes]


def _second(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradients of the gradients times their cotangents x', h', W' and B', by the factors and by g.

    With ``A' = x' W + x W'``, the change of A, and the gradients G = B g and G' = B' g with respect to the terms, these
    are the gradients of ``<G', h A> + <G, h' A + h A'>``: 2 matrix products for A and at most 8 over the edges.
    """
    (x, hidden, weight, basis, g), cotangents = arguments[:5], arguments[5:9]
    pointers, code, wanted = arguments[9:]
    of_x, of_hidden, of_weight, of_basis = (part if part.numel() else None for part in cotangents)
    plan = _plan(tuple(code))
    by_x, by_hidden, by_weight, by_basis, by_g = results = _results((x, hidden, weight, basis, g), wanted)
    for chunk in chunks(plan, hidden, pointers):
        nodes, change = x[chunk.nodes], _rows(of_x, chunk)
        a, a_change = _matrices_and_change(plan, (nodes, weight), (change, of_weight))
        h, h_change = chunk.pad(hidden), None if of_hidden is None else chunk.pad(of_hidden)
        b, b_change = chunk.pad(basis), None if of_basis is None else chunk.pad(of_basis)
        cotangent = chunk.pad(g)

        if by_basis is not None or by_g is not None:
            terms = _sum_of_products(((h, a_change), (h_change, a)))  # h A' + h' A
            if by_basis is not None and terms is not None:
                chunk.put(by_basis, basis_gradient(plan, terms, cotangent))
            if by_g is not None:
                parts = [] if terms is None else [messages(plan, b, terms)]
                parts += [] if b_change is None else [messages(plan, b_change, torch.bmm(h, a))]
                chunk.put(by_g, sum(parts[1:], parts[0]) if parts else torch.zeros_like(cotangent))

        by_terms = terms_gradient(plan, b, cotangent)  # G
        by_terms_change = None if b_change is None else terms_gradient(plan, b_change, cotangent)  # G'
        if by_hidden is not None:
            part = _sum_of_products(((by_terms, None if a_change is None else a_change.mT), (by_terms_change, a.mT)))
            if part is not None:
                chunk.put(by_hidden, part)
        if by_x is None and by_weight is None:
            continue
        into = _rows(by_x, chunk), by_weight
        by_matrices = _sum_of_products(((h.mT, by_terms_change), (None if h_change is None else h_change.mT, by_terms)))
        if by_matrices is not None:
            add_node_gradients(plan, by_matrices, (nodes, weight), *into)
        if change is not None or of_weight is not None:
            add_node_gradients(plan, torch.bmm(h.mT, by_terms), (change, of_weight), *into)
    return _filled(results, x)


def _matrices_and_change(
    plan: PathPlan, factors: tuple[Tensor, Tensor], changes: tuple[Tensor | None, Tensor | None]
) -> tuple[Tensor, Tensor | None]:
    """Return A, and its change with x and W."""
    (x, weight), (of_x, of_weight) = factors, changes
    parts = [matrices(plan, of_x, weight)] if of_x is not None else []
    parts += [matrices(plan, x, of_weight)] if of_weight is not None else []
    return matrices(plan, x, weight), sum(parts[1:], parts[0]) if parts else None


def _sum_of_products(pairs: Sequence[tuple[Tensor | None, Tensor | None]]) -> Tensor | None:
    """Return the sum of the matrix products of complete pairs; None if there are none."""
    total: Tensor | None = None
    for left, right in pairs:
        if left is not None and right is not None:
            total = torch.bmm(left, right) if total is None else total.baddbmm_(left, right)
    return total


def _shape(*arguments: Any) -> tuple[int, int]:
    return arguments[1].shape[0], _plan(tuple(arguments[-1])).message_dim


_operator = multilinear(
    "path_messages",
    ("x", "hidden", "weight", "basis"),
    ("Tensor pointers", "int[] code"),
    _messages,
    _gradients,
    _shape,
    _second,
)


def _by_edges(x: Tensor, hidden: Tensor, weight: Tensor, basis: Tensor, pointers: Tensor, plan: PathPlan) -> Tensor:
    """Compute the same in operators of PyTorch, with a matrix per edge instead of per sender."""
    sent = x.index_select(0, batch_from_ptr(pointers, hidden.shape[0]))
    terms = torch.bmm(hidden.unsqueeze(1), matrices(plan, sent, weight))  # [E, 1, M]
    return messages(plan, basis.unsqueeze(1), terms).squeeze(1)


def path_messages(x: Tensor, hidden: Tensor, weight: Tensor, basis: Tensor, pointers: Tensor, plan: PathPlan) -> Tensor:
    """Return the messages m of the module's formula, for edges sorted by their *sender*.

    Args:
        x: features of the nodes: blocks ``[2 l + 1, C_l]`` of the degrees of the plan, side by side.
        hidden: last hidden layer h of the radial network, for each edge.
        weight: last linear map W: blocks ``[C_l, H, f, o]`` of the pairs of the plan, one after another.
        basis: couplings B of each edge: a block ``[l f, 2 k + 1]`` for each output degree.
        pointers: first edge of each sender.
        plan: plan of the tensor product.

    Shapes:
        x: [N, Σ (2l+1) C_l]. hidden: [E, H]. weight: [plan.weight_numel]. basis: [E, plan.basis_dim].
        pointers: [N + 1] int64. Returns [E, plan.message_dim]: blocks ``[2 k + 1, C_k]`` side by side.
    """
    factors = (x, hidden, weight, basis)
    dtype = reduce(torch.promote_types, (factor.dtype for factor in factors))  # they differ under autocast
    x, hidden, weight, basis = (factor.to(dtype) for factor in factors)
    if decomposed() or in_transform():
        return _by_edges(x, hidden, weight, basis, pointers, plan)
    return _operator(x, hidden, weight, basis, pointers, plan.code)
