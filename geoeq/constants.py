"""Constant tensors, computed once in float64 on the CPU, whatever the current defaults are."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch

__all__ = ["constant", "default_dtype"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set PyTorch's default dtype, which determines the precision of e3nn's constants, within a ``with`` block."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def constant(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorate a function of hashable arguments that returns constants, so that each is computed once and cached.

    Constants are computed in float64 on the CPU, even if a model is built within ``torch.device("meta")``, and can be
    used in derivatives, even if the first call is in ``torch.inference_mode()``.
    """

    @functools.cache
    @functools.wraps(function)
    def cached(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with torch.inference_mode(False), torch.no_grad(), default_dtype(torch.float64), torch.device("cpu"):
            return function(*args, **kwargs)

    return cached  # type: ignore[return-value]  # a cache is not typed by its arguments
