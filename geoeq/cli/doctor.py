"""What is available on this machine and, for what is not, why: the text of ``geoeq doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

import geoeq
from geoeq import __version__, kernels
from geoeq.errors import GeoeqError
from geoeq.resources import EXTRAS, cache_root, missing, share

__all__ = ["doctor_lines"]

#: The packages without which geoeq does not work, by the names under which pip knows them.
_CORE = ("torch", "torch-geometric", "e3nn", "llvmlite", "numpy", "ase", "vesin", "safetensors", "PyYAML")


def doctor_lines() -> list[str]:
    """The report, line by line: versions, devices, kernel backends, extras and folders."""
    sections = {
        "Versions": [("geoeq", __version__), ("Python", platform.python_version()), *map(_version, _CORE)],
        "Devices": _devices(),
        "Kernel backends": [
            (status.name, "available" if status.reason is None else f"not available: {status.reason}")
            for status in kernels.report()
        ],
        "Extras": [(extra, _extra(extra)) for extra in EXTRAS],
        "Folders": [
            ("package", str(Path(geoeq.__file__).parent)),
            *map(_share, ("datasets", "recipes")),
            ("cache", _cache()),
        ],
    }
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    lines = []
    for title, rows in sections.items():
        lines.append(title)
        lines.extend(f"  {name:<{width}}  {text}" for name, text in rows)
    return lines


def _version(package: str) -> tuple[str, str]:
    try:
        return package, importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return package, f"not installed; install it with: pip install '{package}'"


def _devices() -> list[tuple[str, str]]:
    rows = [("CPU", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads for torch")]
    for place in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(place)
        memory = properties.total_memory / 2**30
        rows.append(
            (f"cuda:{place}", f"{properties.name}, {memory:.0f} GiB, capability {properties.major}.{properties.minor}")
        )
    if torch.version.cuda is None:
        rows.append(("CUDA", "not available: this torch is built without it"))
    elif not torch.cuda.is_available():
        rows.append(("CUDA", f"not available: torch is built for {torch.version.cuda}, and finds no device"))
    return rows


def _extra(extra: str) -> str:
    lacking = missing(extra)
    if not lacking:
        return "installed"
    remedy = "make scatter, in a checkout" if extra == "scatter" else f"pip install 'geoeq[{extra}]'"
    return f"lacks {', '.join(lacking)}; install with: {remedy}"


def _share(kind: str) -> tuple[str, str]:
    try:
        folder = share(kind)
    except GeoeqError as error:
        return kind, str(error)
    entries = sorted(path.name for path in folder.iterdir() if path.is_dir())
    return kind, f"{folder} ({', '.join(entries) or 'empty'})"


def _cache() -> str:
    folder = cache_root()
    return str(folder) if folder.is_dir() else f"{folder} (made when first needed)"
