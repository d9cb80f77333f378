"""The numbers of ``md.py``: a run puts its rows in the place of those of earlier runs on the same machine."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import torch
from md_process import CUTOFF
from models import processor

import geoeq
from geoeq.environment import git_commit

__all__ = ["about", "begin", "new"]


def _machine(threads: int, device: str) -> str:
    return f"{processor()}, {threads} threads, {device}, "


def about(threads: int, device: str) -> str:
    """When and where a run was, and of which commit."""
    return (
        f"{datetime.date.today()}: {_machine(threads, device)}geoeq {geoeq.__version__} (commit {git_commit()}), "
        f"torch {torch.__version__}"
    )


def new(threads: int, device: str) -> dict[str, Any]:
    """Numbers of a run alone."""
    return {
        "runs": [about(threads, device)],
        "device": device,
        "cutoff": CUTOFF,
        "missing": {},
        "models": {},
        "structures": {},
        "minutes": 0.0,
    }


def begin(path: Path | None, threads: int, device: str) -> dict[str, Any]:
    """Those of a file with one run more, or of this run alone where there is no file.

    Raises:
        SystemExit: the file is of another machine, device, cutoff or number of threads.
    """
    fresh = new(threads, device)
    if path is None or not path.exists():
        return fresh
    earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "about" in earlier:  # files of one run
        earlier["runs"] = [earlier.pop("about").removeprefix("Written by `python benchmarks/md.py` on ").rstrip(".")]
    known = [text for text in earlier["runs"] if _machine(threads, device) not in text]
    if known or earlier["cutoff"] != CUTOFF:
        raise SystemExit(
            f"{path} has numbers of {known[0] if known else earlier['cutoff']}, which are not to be compared with "
            f"those of {_machine(threads, device)}a cutoff of {CUTOFF:g} Å: give another --output."
        )
    earlier["runs"] += fresh["runs"]
    return earlier | {"minutes": 0.0}
