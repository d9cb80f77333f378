"""Compare networks with the numbers of their authors' implementation, as ``geoeq parity`` does.

A case is a safetensors file (``param.*``, ``input.*``, ``output.*``) with a JSON file of the same name that has the
authors' hyperparameters. A small case of each network is shipped with geoeq (``SHIPPED``).

An output may differ by the tolerance of its dtype, or by twice the ``frame_spread`` of the JSON file: the largest
difference between a few runs of the published code, where that code rotates edge frames at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoeq.documents import read_json
from geoeq.errors import DataError, unknown_name
from geoeq.parity.networks import NETWORKS, Network

__all__ = ["NETWORKS", "SHIPPED", "CaseResult", "check_case", "run", "shipped_cases"]

#: folder of the cases that are part of geoeq: NETWORK/CASE.safetensors and NETWORK/CASE.json.
SHIPPED = Path(__file__).parent / "golden"

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@dataclass(frozen=True)
class CaseResult:
    """Relative error of each output of a case, the limits, and a remark (empty if there is none)."""

    path: Path
    errors: dict[str, float]
    limits: dict[str, float]
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether every error is within its limit."""
        return all(error <= self.limits[name] for name, error in self.errors.items())


def shipped_cases(network: str | None = None) -> list[Path]:
    """Return the cases that are part of geoeq.

    Args:
        network: one of ``NETWORKS``; None for all.

    Raises:
        DataError: the network is unknown.
    """
    if network is not None and network not in NETWORKS:
        raise DataError(unknown_name("network", network, NETWORKS))
    return sorted(SHIPPED.glob(f"{network or '*'}/*.safetensors"))


def check_case(path: str | Path, network: str | None = None) -> CaseResult:
    """Run one case.

    Args:
        path: the safetensors file.
        network: one of ``NETWORKS``; by default the name of the file's folder.

    Raises:
        DataError: the file or its JSON file is missing or broken, or the network is unknown.
        CheckpointError: the parameters do not fit the hyperparameters.
    """
    path = Path(path)
    tensors, hyperparameters, spread = _read(path)
    name = network or path.resolve().parent.name
    if name not in NETWORKS:
        raise DataError(f"{path}: {unknown_name('network', name, NETWORKS)} Name it with --network.")
    parts = {kind: _part(tensors, kind) for kind in ("param", "input", "output")}
    if not parts["param"] and isinstance(NETWORKS[name], Network):
        raise DataError(f"{path}: has no parameters (param.*), from which the network could be made.")
    dtype = parts["input"]["pos"].dtype if "pos" in parts["input"] else torch.float64
    outputs, remark = NETWORKS[name].run(parts, hyperparameters)
    missing = sorted(set(parts["output"]) - set(outputs))
    if missing:
        raise DataError(f"{path}: has outputs that are not compared: {', '.join(missing)}.")
    errors = {key: _relative_error(outputs[key], value) for key, value in sorted(parts["output"].items())}
    # Our frames are one more random draw, which may lie slightly outside the spread of a few runs.
    limits = {key: max(_TOLERANCE[dtype], 2 * spread.get(key, 0.0)) for key in errors}
    loose = ", ".join(key for key, limit in limits.items() if limit > _TOLERANCE[dtype])
    if loose:
        remark = f"the published code itself spreads by more than the tolerance: {loose}"
    return CaseResult(path, errors, limits, remark)


def run(cases: Sequence[str | Path] = (), network: str | None = None) -> tuple[list[str], bool]:
    """Check cases.

    Args:
        cases: files, and names of networks for the shipped cases of these; none for all shipped cases.
        network: the network of the files; by default the name of each file's folder.

    Returns:
        The lines of a table (one for each output of each case), and whether all are within their tolerance.

    Raises:
        DataError: a file is missing or broken, or a network is unknown.
        CheckpointError: the parameters of a case do not fit its hyperparameters.
    """
    paths = [path for case in cases for path in _paths(case)] if cases else shipped_cases()
    results = [check_case(path, network) for path in paths]
    labels = [_label(path) for path in paths]
    width = max(map(len, labels), default=4)
    lines = [f"{'case':<{width}}  {'output':<10}  {'error':>8}  {'limit':>8}"]
    for label, result in zip(labels, results, strict=True):
        for name, error in result.errors.items():
            limit = result.limits[name]
            verdict = "ok" if error <= limit else "FAILED"
            lines.append(f"{label:<{width}}  {name:<10}  {error:8.1e}  {limit:8.1e}  {verdict}")
        if result.remark:
            lines.append(f"  note: {result.remark}")
    return lines, bool(results) and all(result.passed for result in results)


def _paths(case: str | Path) -> list[Path]:
    """Return the files that an argument names: itself, or the shipped cases of a network."""
    path = Path(case)
    if path.suffix == ".safetensors" or path.is_file():
        return [path]
    return shipped_cases(str(case))


def _label(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}" if path.is_relative_to(SHIPPED) else str(path)


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    error = float((ours - theirs).detach().abs().max() / theirs.abs().max())
    return error if error == error else float("inf")


def _part(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{kind}."): value for key, value in tensors.items() if key.startswith(f"{kind}.")}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, object], dict[str, float]]:
    """Return tensors, hyperparameters, and the differences between runs of the published code, by output."""
    description = path.with_suffix(".json")
    for file in (path, description):
        if not file.is_file():
            raise DataError(f"{file} is missing; a case is a .safetensors file with a .json of the same name.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a whole safetensors file ({error}).") from error
    try:
        settings = read_json(description)
        hyperparameters = dict(settings["hyperparameters"]) if _part(tensors, "param") else {}
        spread = settings.get("frame_spread", {})
        if isinstance(spread, list):  # in the order of the outputs
            spread = dict(zip(settings["outputs"], spread, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{description} is not JSON with 'hyperparameters' ({error!r}).") from error
    return tensors, hyperparameters, spread
