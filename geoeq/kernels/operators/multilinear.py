"""Operators that are linear in each of their factors, with derivatives of every order from two functions.

With ``Φ(a, b, .., g) = <form(a, b, ..), g>``, the gradient of the form with respect to a factor is Φ without that
factor. It is linear in all others, so *its* gradients are Φ again, with a cotangent instead of the omitted factor.
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
    """Register the operators ``geoeq::name`` and ``geoeq::name_gradients``, and return the first.

    Args:
        name: name of the operator.
        factors: names of the tensors in which it is linear.
        rest: further arguments, in the language of torch's schemas, such as ``"Tensor index"`` or ``"str backend"``.
        form: function of factors and rest that computes the value; all tensors are contiguous.
        gradients: function of factors, the cotangent g of the form, rest, and one boolean per factor that says whether
            the gradient of Φ is wanted; returns a tensor for each factor, an empty one if it is not wanted.
        shape: function of factors and rest that returns the shape of the form.
        second: gradients of the gradients in one call, if that is faster than composing them; registered as
            ``geoeq::name_second``. A function of factors, g, a cotangent for each factor (empty: none), rest, and
            booleans for factors and g; returns the same as ``composed_second``.
    """
    count, tail = len(factors), ", ".join(rest)
    names = ", ".join(f"Tensor {factor}" for factor in factors)

    def register(suffix: str, function: Callable[..., Any], between: str, results: int) -> Any:
        arguments = f"{names}, {between}{tail}" + (", bool[] wanted" if suffix else "")
        returns = "Tensor" if not suffix else f"({', '.join(['Tensor'] * results)})"
        return torch.library.custom_op(
            f"geoeq::{name}{suffix}", _on_contiguous(function), mutates_args=(), schema=f"({arguments}) -> {returns}"
        )

    operator = register("", form, "", 1)
    derivative = register("_gradients", gradients, "Tensor cotangent, ", count)

    @operator.register_fake  # type: ignore[untyped-decorator]
    def _(*arguments: Any) -> Tensor:
        return arguments[0].new_empty(shape(*arguments))  # type: ignore[no-any-return]

    @derivative.register_fake  # type: ignore[untyped-decorator]
    def _(*arguments: Any) -> tuple[Tensor, ...]:
        return _like(arguments[:count], arguments[-1])

    def backward(ctx: Any, cotangent: Tensor | None) -> tuple[Tensor | None, ...]:
        if cotangent is None:
            return (None,) * (count + len(rest))
        arguments, wanted = _saved(ctx), list(ctx.needs_input_grad[:count])
        results = derivative(*arguments[:count], cotangent, *arguments[count:], wanted)
        return *_select(results, wanted), *[None] * len(rest)

    def composed(
        values: Sequence[Tensor],
        g: Tensor,
        cotangents: Sequence[Tensor | None],
        rest: Sequence[Any],
        wanted: Sequence[bool],
    ) -> Sequence[Tensor | None]:
        return composed_second(
            lambda *factors: operator(*factors, *rest),
            lambda *factors: derivative(*factors[:-1], *rest, factors[-1]),
            (values, g, cotangents, wanted),
        )

    def backward_of_derivative(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        *arguments, computed = _saved(ctx)
        values, g, others = arguments[:count], arguments[count], arguments[count + 1 :]
        wanted = list(ctx.needs_input_grad[: count + 1])
        parts = _select(cotangents, computed)
        if second_operator is None:
            return *composed(values, g, parts, others, wanted), *[None] * len(rest), None
        filled = [g.new_empty(0) if part is None else part for part in parts]
        results = second_operator(*values, g, *filled, *others, wanted)
        return *_select(results, wanted), *[None] * len(rest), None

    operator.register_autograd(backward, setup_context=_save)
    derivative.register_autograd(backward_of_derivative, setup_context=_save)
    if second is None:
        second_operator = None
        return operator  # type: ignore[no-any-return]

    cotangent_names = ", ".join(f"Tensor of_{factor}" for factor in factors)
    second_operator = register("_second", second, f"Tensor cotangent, {cotangent_names}, ", count + 1)

    @second_operator.register_fake  # type: ignore[untyped-decorator]
    def _(*arguments: Any) -> tuple[Tensor, ...]:
        return _like(arguments[: count + 1], arguments[-1])

    def backward_of_second(ctx: Any, *seeds: Tensor | None) -> tuple[Tensor | None, ...]:
        """Compute third derivatives by differentiating the composed second ones."""
        *arguments, wanted = _saved(ctx)
        tensors, others = arguments[: 2 * count + 1], arguments[2 * count + 1 :]
        needed = ctx.needs_input_grad[: 2 * count + 1]
        further = torch.is_grad_enabled()
        aliases = [tensor.view_as(tensor) if further else tensor.detach() for tensor in tensors]
        aliases = [
            alias.requires_grad_() if need and not alias.requires_grad else alias
            for alias, need in zip(aliases, needed, strict=True)
        ]
        values, g, cotangents = aliases[:count], aliases[count], aliases[count + 1 :]
        with torch.enable_grad():
            results = composed(values, g, [part if part.numel() else None for part in cotangents], others, wanted)
        both = zip(results, seeds, strict=True)
        pairs = [(result, seed) for result, seed in both if result is not None and seed is not None]
        outputs, output_seeds = [result for result, _ in pairs], [seed for _, seed in pairs]
        inputs = [alias for alias, need in zip(aliases, needed, strict=True) if need]
        third = iter(torch.autograd.grad(outputs, inputs, output_seeds, create_graph=further, allow_unused=True))
        return *(next(third) if need else None for need in needed), *[None] * len(rest), None

    second_operator.register_autograd(backward_of_second, setup_context=_save)
    return operator  # type: ignore[no-any-return]


def composed_second(
    form: Operator,
    gradients: Callable[..., Sequence[Tensor]],
    arguments: tuple[Sequence[Tensor], Tensor, Sequence[Tensor | None], Sequence[bool]],
) -> list[Tensor | None]:
    """Return the gradients of the gradients: those of the sum of Φ with one factor after another replaced.

    Args:
        form: function of the factors.
        gradients: function of the factors, g, and which gradients are wanted.
        arguments: factors, g, the cotangent that replaces each factor (or None), and which gradients by factors and g
            are wanted.

    Returns:
        The gradients with respect to factors and g; None if one is not wanted or nothing depends on it.
    """
    factors, g, cotangents, wanted = arguments
    *wanted_factors, wanted_g = wanted
    total: list[Tensor | None] = [None] * len(wanted)
    for index, replacement in enumerate(cotangents):
        if replacement is None:
            continue
        replaced = [*factors[:index], replacement, *factors[index + 1 :]]
        others = [want and n != index for n, want in enumerate(wanted_factors)]
        if any(others):
            for n, value in enumerate(_select(gradients(*replaced, g, others), others)):
                total[n] = _sum(total[n], value)
        if wanted_g:
            total[-1] = _sum(total[-1], form(*replaced))
    return total


def _save(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.set_materialize_grads(False)  # None marks a cotangent that is zero
    ctx.rest = [None if isinstance(value, Tensor) else value for value in inputs]


def _saved(ctx: Any) -> list[Any]:
    tensors = iter(ctx.saved_tensors)
    return [next(tensors) if value is None else value for value in ctx.rest]


def _like(tensors: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
    pairs = zip(tensors, wanted, strict=True)
    return tuple(tensor.new_empty(tensor.shape if want else (0,)) for tensor, want in pairs)


def _select(values: Sequence[Tensor | None], wanted: Sequence[bool]) -> list[Tensor | None]:
    return [value if want else None for value, want in zip(values, wanted, strict=True)]


def _on_contiguous(function: Callable[..., Any]) -> Callable[..., Any]:
    def on_contiguous(*arguments: Any) -> Any:
        return function(*(value.contiguous() if isinstance(value, Tensor) else value for value in arguments))

    return on_contiguous


def _sum(total: Tensor | None, value: Tensor | None) -> Tensor | None:
    if total is None or value is None:
        return value if total is None else total
    return total + value
