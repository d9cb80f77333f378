"""A worker (``md_worker.py``) as ``md.py`` sees it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from md_cases import Case

__all__ = ["CUTOFF", "Process"]

#: In Å, of all potentials.
CUTOFF = 5.0

#: Seconds of one answer.
LIMIT = 240.0


class Process:
    """A worker, and what it has said."""

    def __init__(self, case: Case, python: Path, threads: int, device: str) -> None:
        here = Path(__file__).resolve().parent
        command = [str(python), "-W", "ignore", "-c", "import md_worker; md_worker.main()", case.factory]
        command += [json.dumps(case.arguments), "--cutoff", str(CUTOFF), "--threads", str(threads), "--device", device]
        paths = [here, here.parent] if case.factory == "geoeq" else [here]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self.failure: str | None = None
        self.spent = 0.0
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer; a failure is kept, and ends the process."""
        began = time.perf_counter()
        answer = self._answer(json.dumps(request) + "\n")
        self.spent += time.perf_counter() - began
        if "failure" in answer:
            self.failure = answer["failure"]
            self.end()
        return answer

    def _answer(self, line: str) -> dict[str, Any]:
        source, target = self._process.stdout, self._process.stdin
        if source is None or target is None:
            return {"failure": "it has no pipes"}
        try:
            target.write(line)
            target.flush()
        except BrokenPipeError:
            return {"failure": f"ended with status {self._process.wait()}"}
        if not select.select([source], [], [], LIMIT)[0]:
            return {"failure": f"took longer than {LIMIT:.0f} s"}
        text = source.readline()
        if not text:
            return {"failure": f"ended with status {self._process.wait()}"}
        answer: dict[str, Any] = json.loads(text)
        return answer

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.wait()
