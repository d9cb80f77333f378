"""What a work item leaves behind: one file, which is there whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Failure", "Result"]

_TEXT = "text"


@dataclass(frozen=True)
class Failure:
    """What there is no label of.

    Attributes:
        name: of the molecule or system.
        number: of the conformer, frame or site; -1 where all of them failed.
        step: what was being done.
        reason: in words.
    """

    name: str
    number: int
    step: str
    reason: str


@dataclass(frozen=True)
class Result:
    """Starts of sampling or labelled frames, and what failed.

    Attributes:
        starts: as ``Start.to_dict`` gives them.
        start: that of the frames, as ``Start.to_dict`` gives it; None where there are no frames.
        frames: arrays of F frames of n atoms: "positions" [F, n, 3], and fields, [F, ..] or [F, n, ..].
        failures: what there is no result of.
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
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_TEXT: np.array(text)}, **self.frames)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Result:
        """The result in the file ``path``."""
        with np.load(path, allow_pickle=False) as arrays:
            known = json.loads(str(arrays[_TEXT]))
            frames = {name: arrays[name] for name in arrays.files if name != _TEXT}
        failures = [Failure(**failure) for failure in known["failures"]]
        return cls(known["starts"], known["start"], frames, failures)
