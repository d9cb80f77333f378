"""Progress of a simulation: a bar with its speed on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.thermo import POTENTIAL, SPEED, TEMPERATURE

__all__ = ["MDProgress"]

#: Seconds between updates of the bar, and between lines without a terminal.
_BAR_INTERVAL, _LINE_INTERVAL = 0.1, 10.0


class MDProgress:
    """Context manager that shows the step, speed, temperature and energy of a running simulation.

    Args:
        console: console to write to.
        settings: settings of the simulation.
        done: number of steps completed by an earlier process.
    """

    def __init__(self, console: Console, settings: MDSettings, done: int = 0) -> None:
        self._console, self._settings = console, settings
        self._shown = time.monotonic()
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=16),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=settings.steps, completed=done, values="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, step: int, row: Mapping[str, float]) -> None:
        """Show a step with the last row of the log."""
        now, last = time.monotonic(), step == self._settings.steps
        interval = _BAR_INTERVAL if self._console.is_terminal else _LINE_INTERVAL
        if now - self._shown < interval and not last:
            return
        self._shown = now
        parts = [f"{row[TEMPERATURE]:.0f} K", f"{row[POTENTIAL]:.4f} eV/atom"] if row else []
        if SPEED in row:
            parts.append(f"{row[SPEED]:.3g} ns/day")
        values = "  ".join(parts)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, values=values)
        else:
            self._console.print(f"step {step:,} of {self._settings.steps:,}  {values}", highlight=False, soft_wrap=True)
