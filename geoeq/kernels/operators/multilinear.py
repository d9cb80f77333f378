"""Operators that are linear in each of their factors, with derivatives of every order from two functions.

With ``Φ(a, b, .., g) = <form(a, b, ..), g>``, the derivative of the form by a factor is Φ without that factor. It is
linear in all that remain, so the derivative of *that* is Φ again, a cotangent in the place of what was left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Operator", "composed_second", "multilinear"]

Operator = Callable[..., Tensor]


def multilinear(
    name: str,
    factors: Sequence[str],
    rest: Sequence[str],
    form: Callable[..., Tensor],
    gradients: Callable[..., Sequence[Tensor]],
    shape: Callable[..., Sequence[int]],
    second: Callable[..., Sequence[Tensor]] | None = None,
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
        second: derivatives of the gradients in one call, where that is faster than one after another; an operator
            ``geoeq::name_second``. Of factors, g, a cotangent for each factor (empty: none), rest, and which are wanted
            of factors and g; gives what ``composed_second`` does.
    """
    count, tail = len(factors), ", ".join(rest)
    names = ", ".join(f"Tensor {factor}" for factor in factors)

    def register(suffix: str, function: Callable[..., Any], between: str, results: int) -> Any:
        arguments = f"{names}, {between}{tail}" + (", bool[] wanted" if suffix else "")
        made = "Tensor" if not suffix else f"({', '.join(['Tensor'] * results)})"
        return torch.library.custom_op(
            f"geoeq::{name}{suffix}", _of_contiguous(function), mutates_args=(), schema=f"({arguments}) -> {made}"
        )

    operator = register("", form, "", 1)
    derivative = register("_gradients", gradients, "Tensor cotangent, ", count)

    @operator.register_fake  # type: ignore[untyped-decorator]
    def _(*given: Any) -> Tensor:
        return given[0].new_empty(shape(*given))  # type: ignore[no-any-return]

    @derivative.register_fake  # type: ignore[untyped-decorator]
    def _(*given: Any) -> tuple[Tensor, ...]:
        return _as(given[:count], given[-1])

    def backward(ctx: Any, cotangent: Tensor | None) -> tuple[Tensor | None, ...]:
        if cotangent is None:
            return (None,) * (count + len(rest))
        given, wanted = _kept(ctx), list(ctx.needs_input_grad[:count])
        found = derivative(*given[:count], cotangent, *given[count:], wanted)
        return *_wanted(found, wanted), *[None] * len(rest)

    def composed(
        own: Sequence[Tensor],
        g: Tensor,
        cotangents: Sequence[Tensor | None],
        rest: Sequence[Any],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor | None]:
        return composed_second(
            lambda *some: operator(*some, *rest),
            lambda *some: derivative(*some[:-1], *rest, some[-1]),
            (own, g, cotangents, wanted),
        )

    def backward_of_derivative(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        *kept, asked = _kept(ctx)
        own, g, others = kept[:count], kept[count], kept[count + 1 :]
        wanted = list(ctx.needs_input_grad[: count + 1])
        cotangents = _wanted(given, asked)
        if second_operator is None:
            return *composed(own, g, cotangents, others, wanted), *[None] * len(rest), None
        filled = [g.new_empty(0) if cotangent is None else cotangent for cotangent in cotangents]
        found = second_operator(*own, g, *filled, *others, wanted)
        return *_wanted(found, wanted), *[None] * len(rest), None

    operator.register_autograd(backward, setup_context=_keep)
    derivative.register_autograd(backward_of_derivative, setup_context=_keep)
    if second is None:
        second_operator = None
        return operator  # type: ignore[no-any-return]

    cotangent_names = ", ".join(f"Tensor of_{factor}" for factor in factors)
    second_operator = register("_second", second, f"Tensor cotangent, {cotangent_names}, ", count + 1)

    @second_operator.register_fake  # type: ignore[untyped-decorator]
    def _(*given: Any) -> tuple[Tensor, ...]:
        return _as(given[: count + 1], given[-1])

    def backward_of_second(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        """Of third order, by those that are composed."""
        *kept, wanted = _kept(ctx)
        tensors, others = kept[: 2 * count + 1], kept[2 * count + 1 :]
        needed = ctx.needs_input_grad[: 2 * count + 1]
        further = torch.is_grad_enabled()
        aliases = [tensor.view_as(tensor) if further else tensor.detach() for tensor in tensors]
        aliases = [
            alias.requires_grad_() if need and not alias.requires_grad else alias
            for alias, need in zip(aliases, needed, strict=True)
        ]
        own, g, cotangents = aliases[:count], aliases[count], aliases[count + 1 :]
        with torch.enable_grad():
            values = composed(own, g, [part if part.numel() else None for part in cotangents], others, wanted)
        pairs = [(value, by) for value, by in zip(values, given, strict=True) if value is not None and by is not None]
        by = [alias for alias, need in zip(aliases, needed, strict=True) if need]
        outputs, seeds = [value for value, _ in pairs], [seed for _, seed in pairs]
        found = iter(torch.autograd.grad(outputs, by, seeds, create_graph=further, allow_unused=True))
        return *(next(found) if need else None for need in needed), *[None] * len(rest), None

    second_operator.register_autograd(backward_of_second, setup_context=_keep)
    return operator  # type: ignore[no-any-return]


def composed_second(
    form: Operator,
    gradients: Callable[..., Sequence[Tensor]],
    given: tuple[Sequence[Tensor], Tensor, Sequence[Tensor | None], Sequence[bool]],
) -> list[Tensor | None]:
    """Derivatives of the gradients: the sum of Φ with one factor after another replaced by its cotangent, derived.

    Args:
        form: of factors. gradients: of factors, g and which are wanted.
        given: factors, g, a cotangent or None for each factor, and which are wanted of factors and g.

    Returns:
        The derivatives by factors and g; None where one is not wanted or there is nothing to derive.
    """
    factors, g, cotangents, wanted = given
    *wanted_factors, wanted_g = wanted
    total: list[Tensor | None] = [None] * len(wanted)
    for place, replacement in enumerate(cotangents):
        if replacement is None:
            continue
        replaced = [*factors[:place], replacement, *factors[place + 1 :]]
        open_ = [want and n != place for n, want in enumerate(wanted_factors)]
        if any(open_):
            for n, value in enumerate(_wanted(gradients(*replaced, g, open_), open_)):
                total[n] = _sum(total[n], value)
        if wanted_g:
            total[-1] = _sum(total[-1], form(*replaced))
    return total


def _keep(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.set_materialize_grads(False)  # None is a cotangent that nobody asked for
    ctx.rest = [None if isinstance(value, Tensor) else value for value in inputs]


def _kept(ctx: Any) -> list[Any]:
    saved = iter(ctx.saved_tensors)
    return [next(saved) if value is None else value for value in ctx.rest]


def _as(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    pairs = zip(tensors, wanted, strict=True)
    return tuple(tensor.new_empty(tensor.shape if want else (0,)) for tensor, want in pairs)


def _wanted(found: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    return [value if want else None for value, want in zip(found, wanted, strict=True)]


def _of_contiguous(function: Callable[..., Any]) -> Callable[..., Any]:
    def of_contiguous(*given: Any) -> Any:
        return function(*(value.contiguous() if isinstance(value, Tensor) else value for value in given))

    return of_contiguous


def _sum(total: Tensor | None, value: Tensor | None) -> Tensor | None:
    if total is None or value is None:
        return value if total is None else total
    return total + value
