"""A function of rows, some rows at a time, which keeps nothing but its arguments for derivatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoeq import kernels

__all__ = ["add_rows", "chunked", "derivatives_in_chunks", "rows_at_once"]

_Function = Callable[..., Tensor]
_Target = tuple[Tensor, int] | None


#: On a device there is no cache to stay in, and many small steps are slow; memory alone is to be saved.
_ON_A_DEVICE = 64


def rows_at_once(like: Tensor, size: int) -> int:
    """``size`` on the CPU, more elsewhere."""
    return size if like.device.type == "cpu" else size * _ON_A_DEVICE


def add_rows(total: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add rows to those of the total at the index, in place and in an order that does not change from run to run."""
    if total.is_cuda:
        total.add_(kernels.segment_sum(rows, index, len(total)))
    else:
        total.index_add_(0, index, rows)


class _Task(NamedTuple):
    """What is computed, and how."""

    function: _Function
    num_rows: int  # of the tensors, those that have rows
    size: int
    target: _Target
    autocast: tuple[str, torch.dtype, bool]
    indices: Sequence[Tensor] = ()  # the tensors after those with rows are tables, of which these rows are taken

    def places(self, count: int) -> Iterator[slice]:
        """Of some rows at a time; one at least."""
        for start in range(0, max(count, 1), self.size):
            yield slice(start, start + self.size)

    def cut(self, tensors: Sequence[Tensor], place: slice) -> list[Tensor]:
        """The arguments for some rows."""
        return [self.cut_one(k, tensor, place) for k, tensor in enumerate(tensors)]

    def cut_one(self, k: int, tensor: Tensor, place: slice) -> Tensor:
        """The argument for some rows that is, or is shaped as, the one of this number."""
        if k < self.num_rows:
            return tensor[place]
        table = k - self.num_rows
        return kernels.gather(tensor, self.indices[table][place]) if table < len(self.indices) else tensor

    def result(self, tensors: Sequence[Tensor]) -> Tensor:
        """What the caller gets."""
        result: Tensor | None = None
        count = len(tensors[0])
        for place in self.places(count):
            part = self.function(*self.cut(tensors, place))
            if self.target is not None:
                index, length = self.target
                result = part.new_zeros(length, *part.shape[1:]) if result is None else result
                add_rows(result, index[place], part)
            elif len(part) == count:
                result = part
            else:
                result = part.new_empty(count, *part.shape[1:]) if result is None else result
                result[place] = part
        return result  # type: ignore[return-value]  # there is one pass at least

    def computed(self, inputs: Sequence[Tensor]) -> Tensor:
        device, dtype, enabled = self.autocast
        with torch.enable_grad(), torch.autocast(device, dtype, enabled):
            return self.function(*inputs)

    def seed(self, gradient: Tensor, place: slice) -> Tensor:
        """The derivative by the results of some rows, from that by what the caller gets."""
        return gradient[place] if self.target is None else kernels.gather(gradient, self.target[0][place])

    def chunks(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> Iterator[tuple[slice, list[Tensor]]]:
        """Places of rows, and the arguments for them, cut off from what they were made of."""
        for place in self.places(len(tensors[0])):
            cut = zip(self.cut(tensors, place), needed, strict=True)
            yield place, [tensor.detach().requires_grad_(need) for tensor, need in cut]

    def totals(self, tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
        """Room for the derivatives: rows are written to, what all rows share is a sum."""
        made = [torch.empty_like if k < self.num_rows else torch.zeros_like for k in range(len(tensors))]
        return [make(tensor) if need else None for make, tensor, need in zip(made, tensors, needed, strict=True)]

    def put(self, totals: Sequence[Tensor | None], place: slice, parts: Sequence[Tensor]) -> None:
        """The derivatives of some rows, of those that are needed."""
        found = iter(parts)
        for k, total in enumerate(totals):
            table = k - self.num_rows
            if total is None:
                continue
            if table < 0:
                total[place] = next(found)
            elif table < len(self.indices):
                add_rows(total, self.indices[table][place], next(found))
            else:
                total.add_(next(found))


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, task: _Task, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.task = task
        return task.result(tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        needed: tuple[bool, ...] = ctx.needs_input_grad[1:]
        found = _Derivatives.apply(ctx.task, needed, gradients[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return None, *found


class _Derivatives(torch.autograd.Function):
    """The derivatives by the arguments; their own derivatives are computed in chunks too."""

    @staticmethod
    def forward(
        ctx: Any, task: _Task, needed: Sequence[bool], gradient: Tensor, *tensors: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(gradient, *tensors)
        ctx.set_materialize_grads(False)  # None is a cotangent that nobody asked for
        ctx.options = task, needed
        totals = task.totals(tensors, needed)
        for place, inputs in task.chunks(tensors, needed):
            wanted = [given for given, need in zip(inputs, needed, strict=True) if need]
            seed = task.seed(gradient, place)
            task.put(totals, place, torch.autograd.grad(task.computed(inputs), wanted, seed, materialize_grads=True))
        return tuple(totals)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        task, needed = ctx.options
        gradient, *tensors = ctx.saved_tensors
        open_ = ctx.needs_input_grad[2:]  # the gradient, then the tensors
        if torch.is_grad_enabled():  # derivatives of third order are wanted
            return None, None, *_at_once(task, needed, cotangents, open_, gradient, tensors)
        by_gradient = torch.zeros_like(gradient) if open_[0] else None
        totals = task.totals(tensors, open_[1:])
        for place, inputs in task.chunks(tensors, needed):
            seed = task.seed(gradient, place).detach().requires_grad_(open_[0])
            mine = [by if by is None else task.cut_one(k, by, place) for k, by in enumerate(cotangents)]
            parts = iter(_second(task, needed, mine, open_, seed, inputs))
            if by_gradient is not None and task.target is not None:
                add_rows(by_gradient, task.target[0][place], next(parts))
            elif by_gradient is not None:
                by_gradient[place] = next(parts)
            task.put(totals, place, list(parts))
        return None, None, by_gradient, *totals


def _second(
    task: _Task,
    needed: Sequence[bool],
    cotangents: Sequence[Tensor | None],
    open_: Sequence[bool],
    seed: Tensor,
    inputs: Sequence[Tensor],
    create_graph: bool = False,
) -> Sequence[Tensor]:
    """Derivatives by seed and inputs, those that are open, of the first derivatives times their cotangents."""
    asked = [(given, by) for given, need, by in zip(inputs, needed, cotangents, strict=True) if need and by is not None]
    by = [tensor for tensor, is_open in zip((seed, *inputs), open_, strict=True) if is_open]
    if not asked:
        return [torch.zeros_like(tensor) for tensor in by]
    wanted, weights = zip(*asked, strict=True)
    with torch.enable_grad():
        first = torch.autograd.grad(task.computed(inputs), wanted, seed, create_graph=True, materialize_grads=True)
    pairs = [(part, weight) for part, weight in zip(first, weights, strict=True) if part.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in by]
    parts, seeds = zip(*pairs, strict=True)
    return torch.autograd.grad(parts, by, seeds, create_graph=create_graph, materialize_grads=True)


def _at_once(
    task: _Task,
    needed: Sequence[bool],
    cotangents: Sequence[Tensor | None],
    open_: Sequence[bool],
    gradient: Tensor,
    tensors: Sequence[Tensor],
) -> list[Tensor | None]:
    """The same of all rows, such that it has derivatives of every order."""
    # Aliases: one of the tensors may be what another was made of, and that way does not count here.
    aliases = [tensor.view_as(tensor) if need else tensor for tensor, need in zip(tensors, needed, strict=True)]
    whole = task._replace(function=lambda *given: task.function(*task.cut(given, slice(None))))
    seed = task.seed(gradient, slice(None))
    seed = seed.view_as(seed)
    found = iter(_second(whole, needed, cotangents, open_, seed, aliases, create_graph=True))
    result = [next(found) if is_open else None for is_open in open_]
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
    """``function(*rows, *shared)``, ``size`` rows at a time: what it makes on the way never exists for all rows.

    For first and second derivatives it is computed again, as many rows at a time; for those of third order at once.

    Args:
        function: of tensors of E rows and of others, to a tensor of E rows; without randomness, and what depends on
            parameters are arguments.
        rows: with E rows each.
        shared: what all rows have in common.
        size: rows at a time, on the CPU.
        target: (index, N) if row e of the results is to be added to row index[e] of N.
        tables: (table, index) for each further argument after those with rows, which in row e is row index[e] of the
            table: it never exists for all rows either.

    Shapes:
        Returns what the function returns, [E, ...], or with a target [N, ...].
    """
    if torch.compiler.is_compiling():  # the compiler chooses by itself what to keep
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
    """First derivatives of ``chunked`` by all arguments that are needed; these can be differentiated themselves.

    Args:
        function, rows, shared, size: of ``chunked``.
        needed: by which of rows and shared.
        gradient: by the result.
    """
    autocast = gradient.device.type, torch.get_autocast_dtype(gradient.device.type), False
    task = _Task(function, len(rows), rows_at_once(rows[0], size), None, autocast)
    found: tuple[Tensor | None, ...] = _Derivatives.apply(task, needed, gradient, *rows, *shared)  # type: ignore[no-untyped-call]
    return list(found)
