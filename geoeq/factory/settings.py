"""Settings of sampling and labelling: everything that determines the numbers of a data set made by geoeq."""

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
    """Frames of molecular dynamics at one temperature (Langevin, time step 0.5 fs, friction 1 / 100 fs).

    Attributes:
        temperature: temperature, K.
        frames: number of frames.
        interval: time between two frames, and before the first, fs.
    """

    temperature: float
    frames: int
    interval: float = 20.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``300K:50``, or ``300K:50:40fs`` with the time between frames."""
        first, frames, *rest = _parts(text, "--md", "300K:50 or 300K:50:40fs", 3)
        interval = {"interval": _quantity(rest[0], "fs", "--md", "40fs")} if rest else {}
        return cls(_quantity(first, "K", "--md", "300K:50"), _count(frames, "--md"), **interval)


@dataclass(frozen=True)
class Rattle:
    """Frames with random displacements.

    Attributes:
        spread: standard deviation of each coordinate, Å.
        frames: number of frames.
    """

    spread: float
    frames: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``0.05Å:20``."""
        spread, frames = _parts(text, "--rattle", "0.05Å:20", 2)
        return cls(_quantity(spread, "Å", "--rattle", "0.05Å:20"), _count(frames, "--rattle"))


@dataclass(frozen=True)
class Modes:
    """Frames of harmonic vibrations around the minimum.

    Attributes:
        temperature: temperature, K.
        frames: number of frames.
    """

    temperature: float
    frames: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``300K:20``."""
        temperature, frames = _parts(text, "--modes", "300K:20", 2)
        return cls(_quantity(temperature, "K", "--modes", "300K:20"), _count(frames, "--modes"))


@dataclass(frozen=True)
class Settings:
    """Settings of sampling and labelling.

    Attributes:
        method: "gfn2", "gfn1", "emt", "lj", or the class path of a calculator of ASE.
        arguments: arguments of the calculator.
        conformers: largest number of different conformers of each SMILES.
        relax: whether to relax every start with the method first.
        md: frames of dynamics from each start.
        rattle: frames of random displacements of each start.
        modes: frames of vibrations about the minimum of each start.
        seed: random seed. Each start has its own, which depends on its name and number but not on the order.
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
            raise InputError(f"--conformers {self.conformers}: the number must be at least 1.")
        if not self.max_force > 0:
            raise InputError(f"--max-force {self.max_force}: the force must be more than 0 eV/Å.")

    @property
    def samples(self) -> bool:
        """Whether frames are sampled in addition to the starts."""
        return any((self.md, self.rattle, self.modes))

    def to_json(self) -> str:
        """Return one line of text from which ``from_json`` restores the settings."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Restore the settings from a text of ``to_json``."""
        return parse(cls, json.loads(text), "settings")


def seed_of(*names: object) -> int:
    """Return a seed from 0 to 2^31 - 1 that depends only on the texts of ``names``."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
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
        raise InputError(f"{option} {text}: the value must be more than 0.")
    return value


def _count(text: str, option: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"{option}: the number of frames must be a positive integer, not '{text}'.")
    return int(text)
