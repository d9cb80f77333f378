"""Every test of data has a cache of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
ODD = (
    b"0",
    b"-1",
    b"999999999999",
    b"1e400",
    b"nan",
    b"2147483648",
    b"9" * 30,
    b"x",
    b"",
    b"-0.0",
    b"\xff",
    b"\x00" * 8,
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("GEOEQ_CACHE", str(folder))
    return folder


@pytest.fixture
def altered() -> Callable[[bytes, np.random.Generator], bytes]:
    """The content of a file cut off, with bits flipped, bytes put in, taken out or repeated, or numbers replaced."""

    def alter(content: bytes, random: np.random.Generator) -> bytes:
        place = int(random.integers(len(content)))
        kind = random.integers(7)
        if kind == 0:
            return content[:place]
        if kind == 1:
            return content[:place] + random.bytes(int(random.integers(1, 9))) + content[place:]
        if kind == 2:
            return content[:place] + content[place + int(random.integers(1, 9)) :]
        if kind == 3:
            stop = place + int(random.integers(1, 200))
            return content[:stop] + content[place:]
        numbers = list(NUMBER.finditer(content))
        if kind > 4 and numbers:
            first, second = (numbers[random.integers(len(numbers))] for _ in range(2))
            other = second[0] if kind == 5 else ODD[random.integers(len(ODD))]
            return content[: first.start()] + other + content[first.end() :]
        changed = bytearray(content)
        for _ in range(int(random.integers(1, 6))):
            changed[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        return bytes(changed)

    return alter
