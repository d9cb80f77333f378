"""Row-wise functions in chunks of rows, recomputed in the backward pass to store nothing but their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoeq import kernels
from geoeq.derivatives import in_transform

__all__ = ["add_rows", "chunked", "derivatives_in_chunks", "rows_at_once"]

_Function = Callable[..., Tensor]
_Target = tuple[Tensor, int] | None

#: Factor of the chunk size on a device, where chunks need not fit in a cache and many small steps are slow.
_DEVICE_FACTOR = 64


def rows_at_once(like: Tensor, size: int) -> int:
    """Return the chunk size: ``size`` on the CPU, more on other devices."""
    return size if like.device.type == "cpu" else size * _DEVICE_FACTOR


def add_rows(total: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add rows to those of the total at the index, in place and in the same order in every run."""
    if total.is_cuda:
        total.add_(kernels.segment_sum(rows, index, len(total)))
    else:
        total.index_add_(0, index, rows)


class _Task(NamedTuple):
    """A row-wise function and how to evaluate it.

    Its tensors are first ``num_rows`` with a row for each result, then tables of which the rows at ``indices`` are
    used, then tensors that all rows share.
    """

    function: _Function
    num_rows: int
    size: int
    target: _Target
    autocast: tuple[str, torch.dtype, bool]
    indices: Sequence[Tensor] = ()

    def slices(self, count: int) -> Iterator[slice]:
        """Yield the rows of each chunk; at least one chunk, which may be empty."""
        for start in range(0, max(count, 1), self.size):
            yield slice(start, start + self.size)

    def select(self, tensors: Sequence[Tensor], rows: slice) -> list[Tensor]:
        """Return the arguments for some rows."""
        return [self.select_one(k, tensor, rows) for k, tensor in enumerate(tensors)]

    def select_one(self, k: int, tensor: Tensor, rows: slice) -> Tensor:
        """Return argument k for some rows, from the whole argument or a tensor of its shape."""
        if k < self.num_rows:
            return tensor[rows]
        table = k - self.num_rows
        return kernels.gather(tensor, self.indices[table][rows]) if table < len(self.indices) else tensor

    def result(self, tensors: Sequence[Tensor]) -> Tensor:
        """Evaluate the function chunk by chunk, and sum its rows at the target if there is one."""
        result: Tensor | None = None
        count = len(tensors[0])
        for rows in self.slices(count):
            part = self.function(*self.select(tensors, rows))
            if self.target is not None:
                index, length = self.target
                result = part.new_zeros(length, *part.shape[1:]) if result is None else result
                add_rows(result, index[rows], part)
            elif len(part) == count:
                result = part
            else:
                result = part.new_empty(count, *part.shape[1:]) if result is None else result
                result[rows] = part
        return result  # type: ignore[return-value]  # there is at least one chunk

    def evaluate(self, inputs: Sequence[Tensor]) -> Tensor:
        """Evaluate the function with gradients, under the autocast of the forward pass."""
        device, dtype, enabled = self.autocast
        with torch.enable_grad(), torch.autocast(device, dtype, enabled):
            return self.function(*inputs)

    def row_gradient(self, gradient: Tensor, rows: slice) -> Tensor:
        """Return the gradient of some rows of the function from the gradient of ``result``."""
        return gradient[rows] if self.target is None else kernels.gather(gradient, self.target[0][rows])

    def chunks(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> Iterator[tuple[slice, list[Tensor]]]:
        """Yield the rows of each chunk, and detached arguments for them."""
        for rows in self.slices(len(tensors[0])):
            pairs = zip(self.select(tensors, rows), needed, strict=True)
            yield rows, [tensor.detach().requires_grad_(need) for tensor, need in pairs]

    def allocate(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
        """Return a tensor for each needed gradient: rows are written once, shared tensors are sums."""
        new = [torch.empty_like if k < self.num_rows else torch.zeros_like for k in range(len(tensors))]
        return [make(tensor) if need else None for make, tensor, need in zip(new, tensors, needed, strict=True)]

    def accumulate(self, totals: Sequence[Tensor | None], rows: slice, gradients: Sequence[Tensor]) -> None:
        """Write or add the needed gradients of one chunk to the totals."""
        remaining = iter(gradients)
        for k, total in enumerate(totals):
            table = k - self.num_rows
            if total is None:
                continue
            if table < 0:
                total[rows] = next(remaining)
            elif table < len(self.indices):
                add_rows(total, self.indices[table][rows], next(remaining))
            else:
                total.add_(next(remaining))


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, task: _Task, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.task = task
        return task.result(tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        needed: tuple[bool, ...] = ctx.needs_input_grad[1:]
        derivatives = _Derivatives.apply(ctx.task, needed, gradients[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return None, *derivatives


class _Derivatives(torch.autograd.Function):
    """First derivatives, whose own derivatives are computed in chunks too."""

    @staticmethod
    def forward(
        ctx: Any, task: _Task, needed: Sequence[bool], gradient: Tensor, *tensors: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(gradient, *tensors)
        ctx.set_materialize_grads(False)  # an unused output has the cotangent None
        ctx.options = task, needed
        totals = task.allocate(tensors, needed)
        for rows, inputs in task.chunks(tensors, needed):
            by = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
            seed = task.row_gradient(gradient, rows)
            task.accumulate(totals, rows, torch.autograd.grad(task.evaluate(inputs), by, seed, materialize_grads=True))
        return tuple(totals)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        task, needed = ctx.options
        gradient, *tensors = ctx.saved_tensors
        by_needed = ctx.needs_input_grad[2:]  # the gradient, then the tensors
        if torch.is_grad_enabled():  # third derivatives are requested
            return None, None, *_second_at_once(task, needed, cotangents, by_needed, gradient, tensors)
        by_gradient = torch.zeros_like(gradient) if by_needed[0] else None
        totals = task.allocate(tensors, by_needed[1:])
        for rows, inputs in task.chunks(tensors, needed):
            seed = task.row_gradient(gradient, rows).detach().requires_grad_(by_needed[0])
            weights = [
                None if weight is None else task.select_one(k, weight, rows) for k, weight in enumerate(cotangents)
            ]
            parts = iter(_second(task, needed, weights, by_needed, seed, inputs))
            if by_gradient is not None and task.target is not None:
                add_rows(by_gradient, task.target[0][rows], next(parts))
            elif by_gradient is not None:
                by_gradient[rows] = next(parts)
            task.accumulate(totals, rows, list(parts))
        return None, None, by_gradient, *totals


def _second(
    task: _Task,
    needed: Sequence[bool],
    cotangents: Sequence[Tensor | None],
    by_needed: Sequence[bool],
    seed: Tensor,
    inputs: Sequence[Tensor],
    create_graph: bool = False,
) -> Sequence[Tensor]:
    """Differentiate the first derivatives times their cotangents by seed and inputs, where ``by_needed`` says so."""
    used = [
        (x, weight) for x, need, weight in zip(inputs, needed, cotangents, strict=True) if need and weight is not None
    ]
    by = [tensor for tensor, need in zip((seed, *inputs), by_needed, strict=True) if need]
    if not used:
        return [torch.zeros_like(tensor) for tensor in by]
    first_by, weights = zip(*used, strict=True)
    with torch.enable_grad():
        first = torch.autograd.grad(task.evaluate(inputs), first_by, seed, create_graph=True, materialize_grads=True)
    pairs = [(part, weight) for part, weight in zip(first, weights, strict=True) if part.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in by]
    parts, seeds = zip(*pairs, strict=True)
    return torch.autograd.grad(parts, by, seeds, create_graph=create_graph, materialize_grads=True)


def _second_at_once(
    task: _Task,
    needed: Sequence[bool],
    cotangents: Sequence[Tensor | None],
    by_needed: Sequence[bool],
    gradient: Tensor,
    tensors: Sequence[Tensor],
) -> list[Tensor | None]:
    """Compute second derivatives of all rows at once, such that they have derivatives of every order."""
    # Aliases: one tensor may have been computed from another, a dependence that must not count here.
    aliases = [tensor.view_as(tensor) if need else tensor for tensor, need in zip(tensors, needed, strict=True)]
    whole = task._replace(function=lambda *arguments: task.function(*task.select(arguments, slice(None))))
    seed = task.row_gradient(gradient, slice(None))
    seed = seed.view_as(seed)
    derivatives = iter(_second(whole, needed, cotangents, by_needed, seed, aliases, create_graph=True))
    result = [next(derivatives) if need else None for need in by_needed]
    if result[0] is not None and task.target is not None:
        result[0] = kernels.segment_sum(result[0], *task.target)
    return result


def chunked(
    function: _Function,
    rows: Sequence[Tensor],
    shared: Sequence[Tensor],
    size: int,
    target: _Target = None,
    tables: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """Apply a row-wise function in chunks, ``function(*rows, *shared)``, recomputing each chunk in the backward pass.

    Intermediate values never exist for all rows. First and second derivatives are computed in chunks too, third
    derivatives at once.

    Args:
        function: function of tensors with E rows and of shared tensors, with E result rows; it is deterministic, and
            the tensors that need gradients are among its arguments.
        rows: tensors with E rows.
        shared: tensors that all rows share.
        size: number of rows per chunk on the CPU.
        target: (index, N) to add row e of the result to row index[e] of N.
        tables: (table, index) for each argument after ``rows`` whose row e is row index[e] of a table; these arguments
            never exist for all rows either.

    Shapes:
        Returns the result of the function, [E, ...], or with a target [N, ...].
    """
    if torch.compiler.is_compiling() or in_transform():  # these decide what to store
        whole = function(*rows, *(kernels.gather(table, index) for table, index in tables), *shared)
        return whole if target is None else kernels.segment_sum(whole, *target)
    device = rows[0].device.type
    autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    indices = tuple(index for _, index in tables)
    task = _Task(function, len(rows), rows_at_once(rows[0], size), target, autocast, indices)
    result: Tensor = _InChunks.apply(task, *rows, *(table for table, _ in tables), *shared)  # type: ignore[no-untyped-call]
    return result


def derivatives_in_chunks(
    function: _Function,
    rows: Sequence[Tensor],
    shared: Sequence[Tensor],
    size: int,
    needed: Sequence[bool],
    gradient: Tensor,
) -> list[Tensor | None]:
    """Compute the first derivatives of ``chunked``, which are differentiable themselves.

    Args:
        function, rows, shared, size: as for ``chunked``.
        needed: whether the derivative by each of rows and shared is needed; the others are None.
        gradient: gradient of the result.
    """
    autocast = gradient.device.type, torch.get_autocast_dtype(gradient.device.type), False
    task = _Task(function, len(rows), rows_at_once(rows[0], size), None, autocast)
    derivatives: tuple[Tensor | None, ...] = _Derivatives.apply(task, needed, gradient, *rows, *shared)  # type: ignore[no-untyped-call]
    return list(derivatives)
