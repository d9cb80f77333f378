"""Ctrl-C and the end of a job: the step is finished and the state written, then the run ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["noted_signals"]


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """The numbers of the signals SIGINT and SIGTERM that came while this was open.

    The second SIGINT interrupts at once. Outside the main thread, where Python takes no signals, the list stays empty.
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
