"""A function of rows, some rows at a time, which keeps nothing but its arguments for derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from geoeq import kernels

__all__ = ["add_rows", "in_chunks", "rows_at_once"]

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


def _result(
    function: _Function, rows: Sequence[Tensor], shared: Sequence[Tensor], size: int, target: _Target
) -> Tensor:
    result: Tensor | None = None
    count = len(rows[0])
    for start in range(0, max(count, 1), size):
        place = slice(start, start + size)
        part = function(*(tensor[place] for tensor in rows), *shared)
        if target is not None:
            index, length = target
            result = part.new_zeros(length, *part.shape[1:]) if result is None else result
            add_rows(result, index[place], part)
        elif len(part) == count:
            result = part
        else:
            result = part.new_empty(count, *part.shape[1:]) if result is None else result
            result[place] = part
    return result  # type: ignore[return-value]  # there is one pass at least


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: _Function, count: int, size: int, target: _Target, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.options = function, count, size, target
        device = tensors[0].device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        return _result(function, tensors[:count], tensors[count:], size, target)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        needed: tuple[bool, ...] = ctx.needs_input_grad[4:]
        function, count, size, target = ctx.options
        device, dtype, enabled = ctx.autocast
        if torch.is_grad_enabled():  # derivatives of higher order are wanted
            with torch.autocast(device, dtype, enabled):
                return None, None, None, None, *_at_once(function, target, tensors, needed, gradients[0])
        found = [
            (torch.empty_like if k < count else torch.zeros_like)(tensor) if need else None
            for k, (tensor, need) in enumerate(zip(tensors, needed, strict=True))
        ]
        for start in range(0, max(len(tensors[0]), 1), size):
            place = slice(start, start + size)
            inputs = [tensor[place] if k < count else tensor for k, tensor in enumerate(tensors)]
            inputs = [tensor.detach().requires_grad_(need) for tensor, need in zip(inputs, needed, strict=True)]
            with torch.enable_grad(), torch.autocast(device, dtype, enabled):
                part = function(*inputs)
            seed = gradients[0][place] if target is None else kernels.gather(gradients[0], target[0][place])
            wanted = [k for k, need in enumerate(needed) if need]
            parts = torch.autograd.grad(part, [inputs[k] for k in wanted], seed, materialize_grads=True)
            for k, value in zip(wanted, parts, strict=True):
                total = found[k]
                if total is not None and k < count:
                    total[place] = value
                elif total is not None:
                    total.add_(value)
        return None, None, None, None, *found


def _at_once(
    function: _Function, target: _Target, tensors: Sequence[Tensor], needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    seed = gradient if target is None else kernels.gather(gradient, target[0])
    # Aliases: one of the tensors may be what another was made of, and that way does not count here.
    aliases = [tensor.view_as(tensor) if need else tensor for tensor, need in zip(tensors, needed, strict=True)]
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    parts = torch.autograd.grad(function(*aliases), wanted, seed, create_graph=True, materialize_grads=True)
    found = iter(parts)
    return [next(found) if need else None for need in needed]


def in_chunks(
    function: _Function, rows: Sequence[Tensor], shared: Sequence[Tensor], size: int, target: _Target = None
) -> Tensor:
    """``function(*rows, *shared)``, ``size`` rows at a time: what it makes on the way never exists for all rows.

    For first derivatives the function is computed again, as many rows at a time; for those of higher order at once.

    Args:
        function: of tensors of E rows and of others, to a tensor of E rows; without randomness, and what depends on
            parameters are arguments.
        rows: with E rows each.
        shared: what all rows have in common.
        size: rows at a time, on the CPU.
        target: (index, N) if row e of the results is to be added to row index[e] of N.

    Shapes:
        Returns what the function returns, [E, ...], or with a target [N, ...].
    """
    if torch.compiler.is_compiling():  # the compiler chooses by itself what to keep
        whole = function(*rows, *shared)
        return whole if target is None else kernels.segment_sum(whole, *target)
    size = rows_at_once(rows[0], size)
    result: Tensor = _InChunks.apply(function, len(rows), size, target, *rows, *shared)  # type: ignore[no-untyped-call]
    return result
