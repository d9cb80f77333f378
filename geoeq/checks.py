"""Is this input a structure at all? Said before a network turns it into NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["check_inputs"]


def check_inputs(data: Any, *, elements: Sequence[int] | None = None, cutoff: float | None = None) -> None:
    """Raise the InputError that says what is wrong with a batch."""
