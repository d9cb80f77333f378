"""A function of rows, some rows at a time, which keeps nothing but its arguments for derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["in_chunks"]

_Function = Callable[..., Tensor]


def _result(function: _Function, rows: Sequence[Tensor], shared: Sequence[Tensor], size: int, summed: bool) -> Tensor:
    result: Tensor | None = None
    count = len(rows[0])
    for start in range(0, max(count, 1), size):
        part = function(*(tensor[start : start + size] for tensor in rows), *shared)
        if summed:
            result = part if result is None else result.add_(part)
        elif len(part) == count:
            result = part
        else:
            result = part.new_empty(count, *part.shape[1:]) if result is None else result
            result[start : start + size] = part
    return result  # type: ignore[return-value]  # there is one pass at least


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: _Function, count: int, size: int, summed: bool, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.options = function, count, size, summed
        device = tensors[0].device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        return _result(function, tensors[:count], tensors[count:], size, summed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        needed: tuple[bool, ...] = ctx.needs_input_grad[4:]
        function, count, size, summed = ctx.options
        device, dtype, enabled = ctx.autocast
        if torch.is_grad_enabled():  # derivatives of higher order are wanted
            with torch.autocast(device, dtype, enabled):
                return None, None, None, None, *_at_once(function, tensors, needed, gradients[0])
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
            seed = gradients[0] if summed else gradients[0][place]
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
    function: _Function, tensors: Sequence[Tensor], needed: Sequence[bool], gradient: Tensor
) -> list[Tensor | None]:
    # Aliases: one of the tensors may be what another was made of, and that way does not count here.
    aliases = [tensor.view_as(tensor) if need else tensor for tensor, need in zip(tensors, needed, strict=True)]
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    parts = torch.autograd.grad(function(*aliases), wanted, gradient, create_graph=True, materialize_grads=True)
    found = iter(parts)
    return [next(found) if need else None for need in needed]


def in_chunks(
    function: _Function, rows: Sequence[Tensor], shared: Sequence[Tensor], size: int, summed: bool = False
) -> Tensor:
    """``function(*rows, *shared)``, ``size`` rows at a time: what it makes on the way never exists for all rows.

    For first derivatives the function is computed again, as many rows at a time; for those of higher order at once.

    Args:
        function: of tensors of E rows and of others; without randomness, and what depends on parameters are arguments.
        rows: with E rows each.
        shared: what all rows have in common.
        size: rows at a time.
        summed: the function's results of different rows are to be added, and have not E rows.

    Shapes:
        Returns what the function returns: [E, ...], or with ``summed`` any shape.
    """
    if torch.compiler.is_compiling():  # the compiler chooses by itself what to keep
        return function(*rows, *shared)
    result: Tensor = _InChunks.apply(function, len(rows), size, summed, *rows, *shared)  # type: ignore[no-untyped-call]
    return result
