"""The environment of a run: versions, git commit and machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

import geoeq

__all__ = ["describe_environment", "git_commit"]

_PACKAGES = ("torch", "torch-geometric", "e3nn", "numpy", "ase", "vesin", "lightning", "torchmetrics")


def describe_environment() -> dict[str, str | int | None]:
    """Return the versions of geoeq and its dependencies, the git commit, and a description of the machine."""
    versions: dict[str, str | int | None] = {"geoeq": geoeq.__version__, "commit": git_commit()}
    versions["python"] = platform.python_version()
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    versions["platform"] = platform.platform()
    versions["cpu_threads"] = torch.get_num_threads()
    versions["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return versions


def git_commit() -> str | None:
    """Return the commit of geoeq's checkout, with "-changed" if it has changes; None if it is not a checkout."""
    root = Path(geoeq.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return result.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return f"{commit}-changed" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None
