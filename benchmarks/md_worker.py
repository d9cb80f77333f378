"""One potential in a process of its own, asked over its standard input: ``md.py`` starts it in every environment.

It needs NumPy, PyTorch and ASE alone, and is the same for all potentials: the same structures, the same loop of ASE,
the same clock. Atoms are made so heavy that no force turns them, with velocities of 300 K of their true masses: so all
potentials, whose weights are random, see the same trajectory.

Each line that it reads is a request in JSON, each line that it writes the answer, ``{"failure": reason}`` where there
is none: ``{"do": "load", "path": .., "seconds": ..}``, then ``{"do": "turn", "steps": .., "seconds": ..}`` as often
as one likes, and ``{"do": "memory"}``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ase.io
import md_factories
import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet

#: What the time of a step is divided into.
PARTS = ("neighbors", "model", "overhead")

TIMESTEP, TEMPERATURE = 0.5, 300.0

#: The forces of a random network shall not be felt.
HEAVIER = 1e12

#: Steps before the first that counts: what is made on the first calls is not part of the time.
WARMING = 3


class Clock:
    """Seconds of parts that may lie within each other, each without those within it.

    Args:
        device: that is waited for where a part begins or ends.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._open: list[str] = []
        self._since = 0.0
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def restart(self) -> None:
        """All parts at zero."""
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What the time within the block is booked as."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Book the time of a function of a module or an object as a part."""
        function: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, timed)

    def _book(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


class Worker:
    """A potential, and the structure that is moved with it."""

    def __init__(self, factory: str, arguments: dict[str, Any], cutoff: float, device: str) -> None:
        torch.manual_seed(0)
        self.potential = md_factories.FACTORIES[factory](arguments, cutoff, device)
        self.device, self.clock = device, Clock(device)
        for name, places in self.potential.watched.items():
            for owner, attribute in places:
                self.clock.watch(owner, attribute, name)
        self.base: float | None = None

    def load(self, path: str, seconds: float) -> dict[str, Any]:
        """Take a structure, and make the steps that do not count; none begins after so many seconds."""
        atoms = ase.io.read(path)
        spread = np.sqrt(units.kB * TEMPERATURE / atoms.get_masses())[:, None]
        velocities = spread * np.random.default_rng(0).normal(size=(len(atoms), 3))
        atoms.set_masses(HEAVIER * atoms.get_masses())
        atoms.set_velocities(velocities)
        self.atoms = atoms
        self.dynamics: Any = None
        _trim()
        self._forget_peak()
        atoms.calc = self.potential.calculator
        began = time.perf_counter()
        atoms.get_forces()
        self.dynamics = VelocityVerlet(atoms, TIMESTEP * units.fs)
        for _ in range(WARMING):
            if time.perf_counter() - began > seconds:
                break
            self.dynamics.run(1)
        if self.base is None:  # what the first structure left behind is code, not data
            _trim()
            self.base = self._now()
        return {"parameters": self.potential.parameters, "packages": self.potential.packages}

    def turn(self, steps: int, seconds: float) -> dict[str, float]:
        """Milliseconds of a step by parts: the mean of so many steps, or of so many seconds, after one more."""
        self.dynamics.run(1)
        self.clock.restart()
        done, began = 0, time.perf_counter()
        while done < steps and (done == 0 or time.perf_counter() - began < seconds):
            with self.clock.part("overhead"):
                self.dynamics.run(1)
            done += 1
        found = {name: 1e3 * value / done for name, value in self.clock.seconds.items()}
        _trim()
        return found | {"steps": done}

    def memory(self) -> dict[str, float]:
        """MB at the most since the structure was loaded, less those after the first structure."""
        return {"MB": self._peak() - (self.base or 0.0)}

    def _now(self) -> float:
        return torch.cuda.memory_allocated() / 2**20 if self.device == "cuda" else _status("VmRSS")

    def _peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if self.device == "cuda" else _status("VmHWM")

    def _forget_peak(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> float:
    """MB of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def _trim() -> None:
    """Give back what is not in use, so that potentials that wait leave the memory to others."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another libc than GNU's
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("factory", choices=md_factories.FACTORIES)
    parser.add_argument("arguments", type=json.loads)
    parser.add_argument("--cutoff", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", required=True)
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages print is no answer
    torch.set_num_threads(given.threads)
    worker: Worker | None = None
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            if worker is None:
                worker = Worker(given.factory, given.arguments, given.cutoff, given.device)
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # of any package: it is told
            reason = str(error).strip().partition("\n")[0]
            answer = {"failure": f"{type(error).__name__}: {reason}"}
        print(json.dumps(answer), file=answers, flush=True)
