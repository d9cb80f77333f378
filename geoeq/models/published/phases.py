"""Signs of the Wigner 3j symbols of e3nn 0.4, on which some published weights were trained."""

from __future__ import annotations

import functools

from geoeq.kernels import coupling

__all__ = ["phase_of_e3nn_04"]


@functools.cache
def phase_of_e3nn_04(l_x: int, l_harmonics: int, l_out: int) -> int:
    """1 where e3nn 0.4 has the symbols of e3nn 0.5 and later, -1 where it has their negative.

    Before 0.5 the symbols of ascending degrees were positive at m = 0, 0, 0 or, where that one is zero, had a first
    entry (row by row) that was positive; those of other orders followed by permutation, with ``(-1)^(l1 + l2 + l3)``
    for odd ones.

    Raises:
        InputError: the degrees do not couple.
    """
    degrees = (l_x, l_harmonics, l_out)
    order = sorted(range(3), key=lambda n: degrees[n])
    ascending = coupling(*(degrees[n] for n in order))
    inversions = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3))
    odd = inversions % 2 == 1 and sum(degrees) % 2 == 1
    entries = ascending.flatten()
    center = ascending[tuple(degrees[n] for n in order)]
    first = center if center.abs() > 1e-10 else entries[(entries.abs() > 1e-10).int().argmax()]
    back = ascending.permute(*(order.index(n) for n in range(3)))
    agree = float((back * coupling(*degrees)).sum()) * float(first) > 0
    return 1 if agree != odd else -1
