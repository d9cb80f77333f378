"""``report``: every check of a candidate, with the error of each symmetry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch_geometric.data import Data

from geoeq.errors import InputError, unknown_name
from geoeq.layers.layer import Group
from geoeq.symmetry.prepare import one_line, prepare
from geoeq.symmetry.subject import Candidate
from geoeq.symmetry.suite import CHECKS, Check

__all__ = ["Report", "Result", "report", "report_of"]

Status = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        name: of the check.
        status: "not applicable" where it could not be made; ``detail`` then says why.
        error: the largest, infinite where something is not finite or was raised; None where not applicable.
        tolerance: the largest error that passes.
        errors: of each output.
        detail: a remark.
        meaning: what a failure usually is; empty where it passed.
    """

    name: str
    status: Status
    error: float | None
    tolerance: float
    errors: dict[str, float]
    detail: str
    meaning: str


@dataclass(frozen=True)
class Report:
    """All results for one candidate.

    Attributes:
        name: of the candidate.
        results: one for each check, in the order of the table.
        remarks: what was tried and what not.
    """

    name: str
    results: tuple[Result, ...]
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether a check was made, and none failed."""
        statuses = {result.status for result in self.results}
        return "passed" in statuses and "failed" not in statuses

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(result.name for result in self.results if result.status == "failed")

    @property
    def errors(self) -> dict[str, float]:
        """Largest error of each check that applies."""
        return {result.name: result.error for result in self.results if result.error is not None}

    def __getitem__(self, name: str) -> Result:
        """The result of a check."""
        for result in self.results:
            if result.name == name:
                return result
        raise InputError(unknown_name("check", name, [result.name for result in self.results]))

    def __str__(self) -> str:
        """A table, with what failures mean."""
        width = max(len(result.name) for result in self.results)
        lines = [self.name, f"  {'check':<{width}}  {'error':>8}  {'limit':>8}"]
        for result in self.results:
            if result.error is None:
                lines.append(f"  {result.name:<{width}}  {'-':>8}  {'-':>8}  not applicable: {result.detail}")
                continue
            verdict = "ok" if result.status == "passed" else "FAILED"
            lines.append(f"  {result.name:<{width}}  {result.error:8.1e}  {result.tolerance:8.1e}  {verdict}")
        for result in self.results:
            if result.status == "failed":
                broken = ", ".join(key for key, error in result.errors.items() if not error <= result.tolerance)
                where = f" of {broken}" if broken else ""
                detail = f" ({result.detail})" if result.detail else ""
                lines.append(f"  {result.name}{where} failed{detail}: {result.meaning}.")
            elif result.status == "passed" and result.detail:
                lines.append(f"  {result.name}: {result.detail}.")
        return "\n".join([*lines, *(f"  note: {remark}" for remark in self.remarks)])

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values; numbers that are not finite as strings."""
        return {
            "name": self.name,
            "passed": self.passed,
            "checks": {
                result.name: {
                    "status": result.status,
                    "error": _number(result.error),
                    "tolerance": result.tolerance,
                    "errors": {key: _number(error) for key, error in result.errors.items()},
                    "detail": result.detail,
                    "meaning": result.meaning,
                }
                for result in self.results
            },
            "remarks": list(self.remarks),
        }


def report(
    candidate: object,
    data: Data | Sequence[Data] | None = None,
    *,
    checks: Sequence[str] | None = None,
    name: str | None = None,
    elements: Sequence[int] | None = None,
    cutoff: float | None = None,
    group: Group | None = None,
    conservative: bool | None = None,
    seed: int = 0,
) -> Report:
    """Check a model, any function of Data, or any calculator of ASE.

    What computes in float64 is checked in float64, a network also where its parameters are float32. Errors are
    relative to the largest entry of an output, but the drift of the energy is in eV/atom/ps.

    Args:
        candidate: a Model, a module or function on Data that gives a dict of names in ``geoeq.fields`` (units too are
            those), or a calculator of ASE.
        data: structures to try; by default random molecules, and crystals if it takes cells. Checks on special
            structures take elements, charges and features from them.
        checks: names in ``CHECKS``; all by default.
        name: for the table; by default that of the class or function.
        elements: atomic numbers of the random structures; by default those that it knows, found by trying.
        cutoff: in Å; by default that of the model, else it is looked for up to 8 Å.
        group: "SE(3)" where reflections need not be respected; by default what the candidate says itself.
        conservative: whether its forces claim to be minus the derivative of its energy. By default they do, but for
            a Model of geoeq that gives forces by a head of their own.
        seed: of structures and group elements.

    Raises:
        InputError: it cannot be called, or fails on every structure, or a check is unknown.
        FieldError: an output is not in ``geoeq.fields``.
    """
    chosen = tuple(CHECKS) if checks is None else tuple(checks)
    for check in chosen:
        if check not in CHECKS:
            raise InputError(unknown_name("check", check, CHECKS))
    known = prepare(
        candidate,
        data,
        name=name,
        elements=elements,
        cutoff=cutoff,
        group=group,
        conservative=conservative,
        seed=seed,
    )
    return report_of(known, chosen, seed)


def report_of(candidate: Candidate, checks: Sequence[str], seed: int = 0) -> Report:
    """The report of a candidate that is prepared already."""
    results = tuple(_result(check, CHECKS[check], candidate, seed) for check in checks)
    return Report(candidate.name, results, candidate.remarks)


def _result(name: str, check: Check, candidate: Candidate, seed: int) -> Result:
    tolerance = check.double if candidate.precision == torch.float64 else check.single
    if check.turns:
        tolerance = max(tolerance, candidate.symmetric_to)
    try:
        measured = check.measure(candidate, seed)
    except Exception as error:  # whatever a stranger's model raises is a finding
        return Result(name, "failed", math.inf, tolerance, {}, f"it raised {one_line(error)}", check.meaning)
    if isinstance(measured, str):
        return Result(name, "not applicable", None, tolerance, {}, measured, "")
    worst = max((math.inf if math.isnan(error) else error for error in measured.errors.values()), default=math.inf)
    passed = worst <= tolerance
    status: Status = "passed" if passed else "failed"
    return Result(name, status, worst, tolerance, measured.errors, measured.detail, "" if passed else check.meaning)


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
