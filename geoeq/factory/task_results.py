"""The result of one item: a single file, written all or nothing."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoeq.files import atomic_write

__all__ = ["Failure", "Result"]

_TEXT = "text"


@dataclass(frozen=True)
class Failure:
    """A structure that has no label.

    Attributes:
        name: name of the molecule or system.
        number: number of the conformer, frame or site; -1 if all of them failed.
        step: the step that failed.
        reason: the reason, in words.
    """

    name: str
    number: int
    step: str
    reason: str


@dataclass(frozen=True)
class Result:
    """Starts of sampling or labelled frames, and the failures.

    Attributes:
        starts: starts as returned by ``Start.to_dict``.
        start: the start of the frames as returned by ``Start.to_dict``; None if there are no frames.
        frames: arrays of F frames of n atoms: "positions" [F, n, 3], and fields [F, ..] or [F, n, ..].
        failures: the structures without a result.
    """

    starts: list[dict[str, Any]] = field(default_factory=list)
    start: dict[str, Any] | None = None
    frames: dict[str, NDArray[Any]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the file ``path``, all or nothing."""
        text = json.dumps(
            {"starts": self.starts, "start": self.start, "failures": [asdict(failure) for failure in self.failures]}
        )
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_TEXT: np.array(text)}, **self.frames)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read the result in the file ``path``."""
        with np.load(path, allow_pickle=False) as arrays:
            known = json.loads(str(arrays[_TEXT]))
            frames = {name: arrays[name] for name in arrays.files if name != _TEXT}
        failures = [Failure(**failure) for failure in known["failures"]]
        return cls(known["starts"], known["start"], frames, failures)
