"""Net charges of structures: the names under which packages store them, and one way to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from geoeq.errors import InputError

__all__ = ["NET_CHARGE_KEYS", "net_charge"]

#: Keys of ``atoms.info`` and of files that contain a net charge in e; ours is the first.
NET_CHARGE_KEYS = ("total_charge", "charge", "net_charge", "molecular_charge")


def net_charge(info: Mapping[str, Any]) -> float | None:
    """Return the net charge of a structure in e from its ``info``; None if it has none of ``NET_CHARGE_KEYS``.

    Raises:
        InputError: a charge is not a finite number, or two keys contradict each other.
    """
    found = {key: _number(key, info[key]) for key in NET_CHARGE_KEYS if info.get(key) is not None}
    if len(set(found.values())) > 1:
        values = ", ".join(f"info['{key}'] is {value:g}" for key, value in found.items())
        raise InputError(f"The net charge is ambiguous: {values}. Keep one of them.")
    return next(iter(found.values()), None)


def _number(key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"info['{key}'] must be the net charge in e, one finite number, not {value!r}.")
    return number
