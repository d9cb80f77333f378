"""Operators that are linear in each of their factors, with derivatives of every order from two functions.

With ``Φ(a, b, .., g) = <form(a, b, ..), g>``, the derivative of the form by a factor is Φ without that factor. It is
linear in all that remain, so the derivative of *that* is Φ again, a cotangent in the place of what was left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Operator", "multilinear"]

Operator = Callable[..., Tensor]


def multilinear(
    name: str,
    factors: Sequence[str],
    rest: Sequence[str],
    form: Callable[..., Tensor],
    gradients: Callable[..., Sequence[Tensor]],
    shape: Callable[..., Sequence[int]],
) -> Operator:
    """Register the operators ``geoeq::name`` and ``geoeq::name_gradients``; returns the first.

    Args:
        name: of the operator.
        factors: names of the tensors in which it is linear.
        rest: what follows them, in the language of torch's schemas, as ``"Tensor index"`` or ``"str backend"``.
        form: of factors and rest; all tensors are contiguous.
        gradients: of factors, the cotangent g of the form, rest, and of which factors the derivatives of Φ are wanted,
            as booleans; gives a tensor for each factor, an empty one where it is not wanted.
        shape: of the form, from factors and rest.
    """
    count, tail = len(factors), ", ".join(rest)
    names = ", ".join(f"Tensor {factor}" for factor in factors)
    results = ", ".join(["Tensor"] * count)
    operator = torch.library.custom_op(
        f"geoeq::{name}",
        _of_contiguous(form),
        mutates_args=(),
        schema=f"({names}, {tail}) -> Tensor",
    )
    derivative = torch.library.custom_op(
        f"geoeq::{name}_gradients",
        _of_contiguous(gradients),
        mutates_args=(),
        schema=f"({names}, Tensor cotangent, {tail}, bool[] wanted) -> ({results})",
    )

    @operator.register_fake
    def _(*given: Any) -> Tensor:
        return given[0].new_empty(shape(*given))  # type: ignore[no-any-return]

    @derivative.register_fake
    def _(*given: Any) -> tuple[Tensor, ...]:
        pairs = zip(given[:count], given[-1], strict=True)
        return tuple(factor.new_empty(factor.shape if want else (0,)) for factor, want in pairs)

    def keep(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
        ctx.set_materialize_grads(False)  # None is a cotangent that nobody asked for
        ctx.rest = [None if isinstance(value, Tensor) else value for value in inputs]

    def kept(ctx: Any) -> list[Any]:
        saved = iter(ctx.saved_tensors)
        return [next(saved) if value is None else value for value in ctx.rest]

    def backward(ctx: Any, cotangent: Tensor | None) -> tuple[Tensor | None, ...]:
        if cotangent is None:
            return (None,) * (count + len(rest))
        given = kept(ctx)
        wanted = list(ctx.needs_input_grad[:count])
        found = derivative(*given[:count], cotangent, *given[count:], wanted)
        own = [value if want else None for value, want in zip(found, wanted, strict=True)]
        return *own, *[None] * len(rest)

    def backward_of_derivative(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        *given, asked = kept(ctx)
        own, g, others = given[:count], given[count], given[count + 1 :]
        total: list[Tensor | None] = [None] * (count + 1)
        for place, (replacement, was_asked) in enumerate(zip(cotangents, asked, strict=True)):
            if replacement is None or not was_asked:
                continue
            replaced = [*own[:place], replacement, *own[place + 1 :]]
            wanted = [need and n != place for n, need in enumerate(ctx.needs_input_grad[:count])]
            if any(wanted):
                found = derivative(*replaced, g, *others, wanted)
                for n, (value, want) in enumerate(zip(found, wanted, strict=True)):
                    total[n] = _sum(total[n], value) if want else total[n]
            if ctx.needs_input_grad[count]:
                total[count] = _sum(total[count], operator(*replaced, *others))
        return *total, *[None] * len(rest), None

    operator.register_autograd(backward, setup_context=keep)
    derivative.register_autograd(backward_of_derivative, setup_context=keep)
    return operator


def _of_contiguous(function: Callable[..., Any]) -> Callable[..., Any]:
    def of_contiguous(*given: Any) -> Any:
        return function(*(value.contiguous() if isinstance(value, Tensor) else value for value in given))

    return of_contiguous


def _sum(total: Tensor | None, value: Tensor) -> Tensor:
    return value if total is None else total + value
