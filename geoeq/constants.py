"""Constant tensors: made once, in float64 on the CPU, whatever the defaults where they are first asked for."""

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
    """Within a ``with`` block, PyTorch's default dtype is this one; e3nn's constants are as exact as it is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def constant(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function of hashable arguments that gives constants: computed once for each, and kept.

    They are computed in float64 and on the CPU, also where a model is built within ``torch.device("meta")``.
    """

    @functools.cache
    @functools.wraps(function)
    def made(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with default_dtype(torch.float64), torch.device("cpu"):
            return function(*args, **kwargs)

    return made  # type: ignore[return-value]  # a cache is not typed by its arguments
