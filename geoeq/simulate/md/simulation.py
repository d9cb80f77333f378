"""Molecular dynamics with bit-exact restarts after an interruption at any moment."""

from __future__ import annotations

import contextlib
import csv
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from ase import Atoms

from geoeq.errors import GeoeqError, InputError, SimulationError
from geoeq.files import AppendLog, load_state, save_state, write_text
from geoeq.simulate.md.integrators import make_integrator, start_velocities
from geoeq.simulate.md.md_state import MDState
from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.stability import StabilityCheck
from geoeq.simulate.md.thermo import SPEED, frame_text, measure

__all__ = ["LAST", "LOG", "STATE", "TRAJECTORY", "Outcome", "Simulation", "StopRule", "noted_signals"]

TRAJECTORY, LOG, STATE, LAST = "trajectory.extxyz", "thermo.csv", "state.pt", "last.extxyz"

#: Takes the calculator results of a step; returns the reason to stop, or None to continue.
StopRule = Callable[[Mapping[str, Any]], str | None]

#: The state is saved at least once in this time, in seconds.
_SAVE_AFTER = 60.0


@dataclass(frozen=True)
class Outcome:
    """End of a run.

    Attributes:
        step: total number of completed steps.
        seconds: time that the steps of this process took.
        stopped: reason returned by the stop rule; None if there was none.
        signal: number of the signal that ended the run; None if there was none.
    """

    step: int
    seconds: float
    stopped: str | None = None
    signal: int | None = None


class Simulation:
    """Molecular dynamics of atoms with any ASE calculator, written to a folder.

    The folder holds ``trajectory.extxyz`` and ``thermo.csv``, to which frames and rows are appended, ``state.pt``, from
    which an interrupted run resumes, and ``last.extxyz``, the last frame. On resuming, everything written after the
    last saved state is cut off, so that the files equal those of an uninterrupted run byte for byte (except for the
    speed column), provided that the calculator returns the same bits for the same structure.

    Args:
        atoms: structure with a calculator; its positions and momenta are changed.
        settings: settings of the simulation.
        folder: output folder; a state in it is resumed.

    Attributes:
        step: number of completed steps.
        velocities: origin of the initial velocities, in words; None if a state was resumed.

    Raises:
        CheckpointError: the state cannot be read, or the files are shorter than it states.
        InputError: the structure does not fit the settings, or no steps are left.
    """

    def __init__(self, atoms: Atoms, settings: MDSettings, folder: str | Path) -> None:
        folder = Path(folder)
        self.atoms, self.settings, self.folder = atoms, settings, folder
        self._generator = np.random.default_rng(settings.seed)
        self._stability = StabilityCheck(atoms, settings)
        sizes = {TRAJECTORY: 0, LOG: 0}
        self.step = 0
        self.velocities: str | None = None
        saved = load_state(folder / STATE) if (folder / STATE).is_file() else None
        if saved is None:
            self.velocities = start_velocities(atoms, settings.temperature, self._generator, settings.velocities)
            self._integrator = make_integrator(atoms, settings, self._generator)
        else:
            last = MDState.from_state(saved)
            if len(last.positions) != len(atoms):
                raise InputError(f"The state has {len(last.positions)} atoms, the structure has {len(atoms)}.")
            if last.step > settings.steps:
                raise InputError(
                    f"'{folder}' already has {last.step} steps, and {settings.steps} are requested: request more."
                )
            last.restore_atoms(atoms)
            self._integrator = make_integrator(atoms, settings, self._generator)
            last.restore_integrator(self._integrator, self._generator)
            self.step, sizes = last.step, saved["sizes"]
        self._frames = AppendLog(folder / TRAJECTORY, sizes[TRAJECTORY])
        self._rows = AppendLog(folder / LOG, sizes[LOG])
        self._last = MDState.take(self.step, atoms, self._integrator, self._generator)
        self._row: dict[str, float] = {}

    def run(
        self,
        *,
        stop: StopRule | None = None,
        report: Callable[[int, Mapping[str, float]], None] | None = None,
    ) -> Outcome:
        """Run the remaining steps.

        However the run ends, ``last.extxyz`` then holds the last step with finite numbers, and ``state.pt`` the last
        one within the stability bounds.

        Args:
            stop: rule called after each step; the run ends when it returns a reason.
            report: function called after each step with its number and the last row of the log.

        Returns:
            The number of steps completed, and why the run ended.

        Raises:
            SimulationError: energy or forces are not finite, the structure exploded, memory ran out, or the files
                cannot be written (the last saved state stays). The message names the step and a remedy.
            KeyboardInterrupt: Ctrl-C was pressed twice; the first one ends the run after the current step.
        """
        began, before = time.monotonic(), self.step
        self._stop, self._report = stop, report
        try:
            with noted_signals() as received:
                reason = self._steps(received)
            self._save()
            if self.step > before or not (self.folder / LAST).is_file():
                self._write_last()
        except OSError as error:
            raise SimulationError(
                f"After step {self.step} the simulation cannot continue: {error}. The last saved state in "
                f"'{self.folder}' is intact: remove the cause, and run the same command again to resume from it."
            ) from error
        finally:
            self._frames.close()
            self._rows.close()
        return Outcome(self.step, time.monotonic() - began, reason, received[0] if received else None)

    def _steps(self, received: list[int]) -> str | None:
        self._clock = saved = time.monotonic()
        self._logged = self.step
        reason = None
        if self._rows.size == 0:  # a new run: evaluate and log the initial structure
            reason = self._advance(0)
            self._save()
        while reason is None and self.step < self.settings.steps and not received:
            reason = self._advance(self.step + 1)
            if self.step % self.settings.save_every == 0 or time.monotonic() - saved > _SAVE_AFTER:
                self._save()
                saved = time.monotonic()
        return reason

    def _advance(self, step: int) -> str | None:
        """Take one step (none for step 0), write its row and frame, and return the reason of the stop rule."""
        try:
            if step:
                self._integrator.run(1)
            self._stability.check_finite(self.atoms)
        except Exception as error:
            self._last.restore_atoms(self.atoms)
            self._save()
            self._fail(step, error)
        now = MDState.take(step, self.atoms, self._integrator, self._generator)
        try:
            self._stability.check_bounds(self.atoms)
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
        """Write the last frame, and raise an error that names the step."""
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
        self._last.restore_atoms(frame)
        write_text(self.folder / LAST, frame_text(frame, self._last.results, self._last.step, self.settings))


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM in a list, so that the current step can finish.

    The second SIGINT interrupts at once. Outside the main thread, where Python cannot handle signals, the list stays
    empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
