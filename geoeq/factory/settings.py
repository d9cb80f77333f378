"""What is sampled, and how it is labelled: all that decides the numbers of a set that geoeq makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from geoeq.errors import InputError
from geoeq.typed import parse
from geoeq.units import parse_quantity

__all__ = ["MD", "Modes", "Rattle", "Settings", "seed_of"]


@dataclass(frozen=True)
class MD:
    """Frames of molecular dynamics at one temperature (Langevin, 0.5 fs a step, friction 1 / 100 fs).

    Attributes:
        temperature: K.
        frames: how many are kept.
        interval: between two of them, and before the first, fs.
    """

    temperature: float
    frames: int
    interval: float = 20.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``300K:50``, or ``300K:50:40fs`` with the time between frames."""
        first, frames, *rest = _parts(text, "--md", "300K:50 or 300K:50:40fs", 3)
        interval = {"interval": _quantity(rest[0], "fs", "--md", "40fs")} if rest else {}
        return cls(_quantity(first, "K", "--md", "300K:50"), _count(frames, "--md"), **interval)


@dataclass(frozen=True)
class Rattle:
    """Frames in which each coordinate is moved at random.

    Attributes:
        spread: standard deviation, Å.
        frames: how many.
    """

    spread: float
    frames: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``0.05Å:20``."""
        spread, frames = _parts(text, "--rattle", "0.05Å:20", 2)
        return cls(_quantity(spread, "Å", "--rattle", "0.05Å:20"), _count(frames, "--rattle"))


@dataclass(frozen=True)
class Modes:
    """Frames of the harmonic vibrations around the minimum.

    Attributes:
        temperature: K.
        frames: how many.
    """

    temperature: float
    frames: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``300K:20``."""
        temperature, frames = _parts(text, "--modes", "300K:20", 2)
        return cls(_quantity(temperature, "K", "--modes", "300K:20"), _count(frames, "--modes"))


@dataclass(frozen=True)
class Settings:
    """How starting structures are sampled and labelled.

    Attributes:
        method: "gfn2", "gfn1", "emt", "lj", or the class path of a calculator of ASE.
        arguments: of the calculator.
        conformers: of each SMILES, at the most; those that coincide count once.
        relax: relax every start with the method first.
        md: frames of dynamics from each start.
        rattle: frames of random displacements of each start.
        modes: frames of vibrations about the minimum of each start.
        seed: of all random numbers; each start has its own, which depends on what it is and not on its place.
        max_force: structures with a larger force on an atom are left out, eV/Å.
    """

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    conformers: int = 1
    relax: bool = False
    md: MD | None = None
    rattle: Rattle | None = None
    modes: Modes | None = None
    seed: int = 0
    max_force: float = 100.0

    def __post_init__(self) -> None:
        if self.conformers < 1:
            raise InputError(f"--conformers {self.conformers}: at least 1 would be right.")
        if not self.max_force > 0:
            raise InputError(f"--max-force {self.max_force}: more than 0 eV/Å would be right.")

    @property
    def samples(self) -> bool:
        """Whether there are frames beside the starts."""
        return any((self.md, self.rattle, self.modes))

    def to_json(self) -> str:
        """One line of text, from which ``from_json`` makes the same."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The settings in a text of ``to_json``."""
        return parse(cls, json.loads(text), "settings")


def seed_of(*what: object) -> int:
    """A seed, from 0 to 2^31 - 1, that depends on the texts of ``what`` alone."""
    digest = hashlib.sha256("\0".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _parts(text: str, option: str, example: str, most: int) -> list[str]:
    parts = text.split(":")
    if not 2 <= len(parts) <= most:
        raise InputError(f"{option} {text}: write it as in {option} {example}.")
    return parts


def _quantity(text: str, unit: str, option: str, example: str) -> float:
    try:
        value = parse_quantity(text, unit)
    except ValueError as error:
        raise InputError(f"{option} {text}: {error} Write it as in {option} {example}.") from error
    if not value > 0:
        raise InputError(f"{option} {text}: more than 0 would be right.")
    return value


def _count(text: str, option: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{option}: the number of frames should be a whole number from 1 on, not '{text}'.")
    return int(text)
