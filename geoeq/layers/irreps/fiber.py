"""Fibers: features with a number of channels of each degree, whatever their parity."""

from __future__ import annotations

from e3nn import o3

from geoeq.errors import InputError

__all__ = ["Fiber", "fiber"]

#: (degree, channels), one for each degree.
Fiber = tuple[tuple[int, int], ...]


def fiber(irreps: o3.Irreps | str) -> Fiber:
    """The degrees and channels of irreps.

    Raises:
        InputError: a degree comes twice, there is none, or one has no channels.
    """
    found = tuple((ir.l, mul) for mul, ir in o3.Irreps(irreps))
    if not found or len({degree for degree, _ in found}) < len(found) or min(channels for _, channels in found) < 1:
        raise InputError(f"The features need each degree once, with at least a channel; found '{irreps}'.")
    return found
