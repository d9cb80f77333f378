"""Derivatives by the positions, in every mode of PyTorch; zero only where they are known to be zero."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from geoeq.errors import InputError
from geoeq.pointers import graph_pointers

__all__ = ["derivatives", "differentiable", "gradients_enabled", "in_transform", "uncompiled", "unconnected"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def in_transform() -> bool:
    """Return whether a transform of ``torch.func`` (grad, jacrev, vmap ...) is running."""
    return torch._C._are_functorch_transforms_active()


@contextlib.contextmanager
def gradients_enabled() -> Iterator[None]:
    """Record operations for derivatives in a ``with`` block, also within ``no_grad`` and ``inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def differentiable(data: Any) -> Any:
    """Return a shallow copy of a Data or Batch whose tensors autograd can use: those of inference mode are cloned."""
    usable = copy.copy(data)
    for key, value in data:
        if isinstance(value, Tensor) and value.is_inference():
            usable[key] = value.clone()
    return usable


def uncompiled(function: _Function) -> _Function:
    """Decorate a function that differentiates: torch.compile compiles what it calls, and not the function itself."""
    return torch.compiler.disable(function, recursive=False)  # type: ignore[no-any-return]


@uncompiled
def derivatives(
    value: Tensor, data: Any, *inputs: Tensor, name: str, weights: Tensor | None = None, create_graph: bool = False
) -> list[Tensor]:
    """Return the derivatives of an output, summed or weighted, by positions and further inputs.

    An output that autograd does not connect to the positions has unknown derivatives. They are known to be zero only if
    every structure is one atom, as translations change nothing.

    Args:
        value: the output.
        data: the structures, whose ``pos`` is the first input.
        inputs: further inputs, such as a strain.
        name: name of the output, for the error.
        weights: weight of each entry of the output; 1 by default.
        create_graph: whether the derivatives will be differentiated.

    Raises:
        InputError: the output is not connected to an input.
    """
    wanted = [data.pos, *inputs]
    if not value.requires_grad:
        found: list[Tensor | None] = [None] * len(wanted)
    else:
        seeds = torch.ones_like(value) if weights is None else weights
        found = list(torch.autograd.grad(value, wanted, seeds, create_graph=create_graph, allow_unused=True))
    if found[0] is None and bool((graph_pointers(data).diff() <= 1).all()):
        found[0] = torch.zeros_like(data.pos)
    known = [derivative for derivative in found if derivative is not None]
    if len(known) < len(found):
        raise unconnected(name)
    return known


def unconnected(name: str) -> InputError:
    """Return the error for an output that autograd does not connect to the positions."""
    return InputError(
        f"No differentiable operations connect '{name}' to the positions, so its derivatives are unknown and not zero: "
        "the model detaches them, or computes with no_grad() or NumPy. "
        f"If '{name}' truly is constant, add 0 * data.pos.sum() to it."
    )
