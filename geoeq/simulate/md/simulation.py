"""Molecular dynamics that can be killed at any moment and goes on to the same bits."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from geoeq.errors import GeoeqError, InputError, SimulationError
from geoeq.files import AppendLog, load_state, save_state, write_text
from geoeq.simulate.md.integrators import make_integrator
from geoeq.simulate.md.md_state import Snapshot
from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.signals import noted_signals
from geoeq.simulate.md.stability import Guard
from geoeq.simulate.md.thermo import SPEED, frame_text, measure
from geoeq.simulate.md.velocities import start_velocities

__all__ = ["LAST", "LOG", "STATE", "TRAJECTORY", "Outcome", "Simulation", "StopRule"]

TRAJECTORY, LOG, STATE, LAST = "trajectory.extxyz", "thermo.csv", "state.pt", "last.extxyz"

#: Takes what the calculator gave for a step; a text is the reason to end the run, None lets it go on.
StopRule = Callable[[Mapping[str, Any]], str | None]

#: In seconds: a state is written after this time in any case.
_SAVE_AFTER = 60.0


@dataclass(frozen=True)
class Outcome:
    """How far a run came.

    Attributes:
        step: steps done in all.
        seconds: that the steps of this process took.
        stopped: the reason of the stop rule; None where there was none.
        signal: the number of the signal that ended it; None where there was none.
    """

    step: int
    seconds: float
    stopped: str | None = None
    signal: int | None = None


class Simulation:
    """Moves atoms with their calculator, any of ASE's, and writes what happens into a folder.

    The folder holds ``trajectory.extxyz`` and ``thermo.csv``, to which frames and rows are added, ``state.pt``, from
    which a killed run goes on, and ``last.extxyz``, where the run ended. What was written after the last state is cut
    off when it goes on, so that files, but for the column of speed, are byte for byte those of a run that was never
    killed, where the calculator gives the same bits for the same structure.

    Args:
        atoms: the structure, with a calculator; it is moved.
        settings: what to do.
        folder: where to write; a state in it is taken up.

    Attributes:
        step: steps done.
        velocities: where those of the start come from, in words; None where a state was taken up.

    Raises:
        CheckpointError: the state cannot be read, or the files are shorter than it says.
        InputError: the structure and the settings do not fit, or no steps are left to do.
    """

    def __init__(self, atoms: Atoms, settings: MDSettings, folder: Path) -> None:
        self.atoms, self.settings, self.folder = atoms, settings, folder
        self._generator = np.random.default_rng(settings.seed)
        self._guard = Guard(atoms, settings)
        sizes = {TRAJECTORY: 0, LOG: 0}
        self.step = 0
        self.velocities: str | None = None
        saved = load_state(folder / STATE) if (folder / STATE).is_file() else None
        if saved is None:
            self.velocities = start_velocities(atoms, settings.temperature, self._generator, settings.velocities)
            self._integrator = make_integrator(atoms, settings, self._generator)
        else:
            last = Snapshot.from_state(saved)
            if len(last.positions) != len(atoms):
                raise InputError(f"The state is of {len(last.positions)} atoms, the structure has {len(atoms)}.")
            if last.step > settings.steps:
                raise InputError(f"In '{folder}' {last.step} steps are done, and {settings.steps} are asked for.")
            last.put_atoms(atoms)
            self._integrator = make_integrator(atoms, settings, self._generator)
            last.put_integrator(self._integrator, self._generator)
            self.step, sizes = last.step, saved["sizes"]
        self._frames = AppendLog(folder / TRAJECTORY, sizes[TRAJECTORY])
        self._rows = AppendLog(folder / LOG, sizes[LOG])
        self._last = Snapshot.take(self.step, atoms, self._integrator, self._generator)
        self._row: dict[str, float] = {}

    def run(
        self,
        *,
        stop: StopRule | None = None,
        report: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> Outcome:
        """Do the steps that are left.

        However it ends, ``last.extxyz`` is then the last step whose numbers are finite, and ``state.pt`` the last one
        that was within the bounds.

        Args:
            stop: asked after each step; the run ends where it gives a reason.
            report: called after each step with its number and the last row of the log.

        Returns:
            How far it came, and why it ended.

        Raises:
            SimulationError: energy or forces are not finite, the structure exploded, or there is no memory for it. The
                message says at which step, and what to do.
            KeyboardInterrupt: at the second Ctrl-C; the first one ends the run after the step.
        """
        began, before = time.monotonic(), self.step
        self._stop, self._report = stop, report
        try:
            with noted_signals() as received:
                reason = self._steps(received)
            self._save()
            if self.step > before or not (self.folder / LAST).is_file():
                self._write_last()
        finally:
            self._frames.close()
            self._rows.close()
        return Outcome(self.step, time.monotonic() - began, reason, received[0] if received else None)

    def _steps(self, received: list[int]) -> str | None:
        self._clock = saved = time.monotonic()
        self._logged = self.step
        reason = None
        if self._rows.size == 0:  # nothing was done yet
            reason = self._advance(0)
            self._save()
        while reason is None and self.step < self.settings.steps and not received:
            reason = self._advance(self.step + 1)
            if self.step % self.settings.save_every == 0 or time.monotonic() - saved > _SAVE_AFTER:
                self._save()
                saved = time.monotonic()
        return reason

    def _advance(self, step: int) -> str | None:
        """One step (none for the start), its row and its frame; what the stop rule says of it."""
        try:
            if step:
                self._integrator.run(1)
            self._guard.check_finite(self.atoms)
        except Exception as error:
            self._last.put_atoms(self.atoms)
            self._save()
            self._fail(step, error)
        now = Snapshot.take(step, self.atoms, self._integrator, self._generator)
        try:
            self._guard.check_bounds(self.atoms)
        except SimulationError as error:
            self._last = now
            self._fail(step, error)
        if step % self.settings.log_every == 0:
            self._log(step)
        if step % self.settings.frame_every == 0:
            self._frames.append(frame_text(self.atoms, now.results, step, self.settings))
        self.step, self._last = step, now
        if self._report is not None:
            self._report(step, self._row)
        return None if self._stop is None else self._stop(now.results)

    def _fail(self, step: int, error: Exception) -> None:
        """Leave the last frame, and say at which step it ended."""
        self._write_last()
        if not isinstance(error, (GeoeqError, MemoryError, torch.OutOfMemoryError)):
            raise error
        text = " ".join(str(error).split("\n")) or type(error).__name__
        raise SimulationError(
            f"Step {step}: {text} The last frame, of step {self._last.step}, is in '{self.folder / LAST}'."
        ) from error

    def _log(self, step: int) -> None:
        now = time.monotonic()
        self._row = measure(self.atoms, self._integrator, self.settings, step)
        cells = [value if isinstance(value, int) else f"{value:.10g}" for value in self._row.values()]
        speed = ""
        if step > self._logged and now > self._clock:
            days = (step - self._logged) * self.settings.timestep * 1e-6 / (now - self._clock) * 86400
            self._row[SPEED] = days
            speed = f"{days:.4g}"
        self._clock, self._logged = now, step
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self._rows.size == 0:
            writer.writerow([name for name in self._row if name != SPEED] + [SPEED])
        writer.writerow([*cells, speed])
        self._rows.append(text.getvalue())

    def _save(self) -> None:
        self._frames.sync()
        self._rows.sync()
        sizes = {TRAJECTORY: self._frames.size, LOG: self._rows.size}
        save_state(self.folder / STATE, {**self._last.to_state(), "sizes": sizes})

    def _write_last(self) -> None:
        frame = self.atoms.copy()
        self._last.put_atoms(frame)
        write_text(self.folder / LAST, frame_text(frame, self._last.results, self._last.step, self.settings))
