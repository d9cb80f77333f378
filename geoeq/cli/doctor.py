"""``geoeq doctor``: report what is installed and available on this machine and, if something is not, why."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import geoeq
from geoeq.errors import GeoeqError
from geoeq.resources import DISTRIBUTION, EXTRAS, cache_root, install_command, missing, share

__all__ = ["add_doctor", "doctor_lines", "run_doctor"]

#: The required packages, by their names on the package index.
_REQUIRED = ("torch", "torch-geometric", "e3nn", "llvmlite", "numpy", "ase", "vesin", "safetensors", "PyYAML")

_ENTRY_POINT = "geoeq.cli.main:main"


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq doctor``, which has none."""
    parser.epilog = "Example: geoeq doctor"


def run_doctor(arguments: argparse.Namespace) -> int:
    """Print the report."""
    print("\n".join(doctor_lines()))
    return 0


def doctor_lines() -> list[str]:
    """Return the report: versions, devices, kernel backends, extras, folders, and conflicts if there are any."""
    from geoeq import kernels

    backends = {status.name: _unavailable(status.name, status.reason) for status in kernels.report()}
    sections = {
        "Versions": [("geoeq", geoeq.__version__), ("Python", platform.python_version()), *map(_version, _REQUIRED)],
        "Devices": _devices(),
        "Kernel backends": [(name, "available" if reason is None else reason) for name, reason in backends.items()],
        "Extras": [(extra, _extra(extra, backends)) for extra in EXTRAS],
        "Folders": [
            ("package", str(Path(geoeq.__file__).parent)),
            *map(_share, ("datasets", "potentials", "recipes")),
            ("cache", _cache()),
        ],
        "Conflicts": [*_other_distribution(), *_other_packages()],
    }
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    lines = []
    for title, rows in sections.items():
        lines += [title] if rows else []
        lines += [f"  {name:<{width}}  {text}" for name, text in rows]
    return lines


def _version(package: str) -> tuple[str, str]:
    try:
        return package, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return package, f"not installed; install it with: pip install '{package}'"


def _devices() -> list[tuple[str, str]]:
    import torch

    threads = torch.get_num_threads()
    rows = [("CPU", f"{os.cpu_count()} cores; torch uses {threads} thread{'' if threads == 1 else 's'}")]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        memory = gpu.total_memory / 2**30
        rows.append((f"cuda:{index}", f"{gpu.name}, {memory:.0f} GiB, compute capability {gpu.major}.{gpu.minor}"))
    if torch.version.cuda is None:
        rows.append(("CUDA", "not available: this torch is built without CUDA"))
    elif not torch.cuda.is_available():
        rows.append(("CUDA", f"not available: torch is built for CUDA {torch.version.cuda}, but finds no device"))
    return rows


#: Kernel backend -> the extra that provides its package.
_PROVIDERS = {"torch_scatter": "scatter", "cuequivariance": "cuequivariance", "triton": "triton"}


def _unavailable(backend: str, reason: str | None) -> str | None:
    """Return why a backend is not available; an extra that is not installed has its remedy among the extras."""
    extra = _PROVIDERS.get(backend)
    if reason is not None and extra is not None and missing(extra):
        return f"not available: the extra '{extra}' is not installed"
    return None if reason is None else f"not available: {reason}"


def _extra(extra: str, backends: Mapping[str, str | None]) -> str:
    lacking = missing(extra)
    if not lacking:
        unusable = [name for name, reason in backends.items() if _PROVIDERS.get(name) == extra and reason is not None]
        return f"installed, but cannot be used here: see the backend {unusable[0]}" if unusable else "installed"
    return f"not installed ({', '.join(lacking)} missing); install with: {install_command(extra)}"


def _share(kind: str) -> tuple[str, str]:
    try:
        folder = share(kind)
    except GeoeqError as error:
        return kind, str(error)
    entries = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return kind, f"{folder} ({', '.join(entries) or 'empty'})"


def _cache() -> str:
    folder = cache_root()
    return str(folder) if folder.is_dir() else f"{folder} (created when first needed)"


def _other_distribution() -> list[tuple[str, str]]:
    """Describe an installed distribution ``geoeq``: another project of the package index, or an old version of ours."""
    try:
        other = importlib.metadata.distribution("geoeq")
    except importlib.metadata.PackageNotFoundError:
        return []
    ours = any(entry.value == _ENTRY_POINT for entry in other.entry_points)
    what = (
        f"an earlier installation of this project, which is now distributed as '{DISTRIBUTION}'"
        if ours
        else f"an unrelated project of the package index ({other.metadata['Summary']})"
    )
    text = (
        f"The distribution 'geoeq' {other.version} is {what}; both provide the package 'geoeq'. "
        f"Uninstall both (pip uninstall geoeq {DISTRIBUTION}), then install {DISTRIBUTION} again."
    )
    return [("distribution", text)]


def _other_packages() -> list[tuple[str, str]]:
    """Describe every other package ``geoeq`` on the import path."""
    here = Path(geoeq.__file__).resolve().parent
    folders = dict.fromkeys(Path(entry or ".").resolve() / "geoeq" for entry in sys.path)
    others = [folder for folder in folders if folder != here and (folder / "__init__.py").is_file()]
    return [("import path", f"'{folder}' is another package 'geoeq'; this command runs '{here}'.") for folder in others]
