"""Report of all checks of a model, function or calculator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch_geometric.data import Data

from geoeq.errors import InputError, check_name, unknown_name
from geoeq.layers.layer import Group
from geoeq.symmetry.prepare import one_line, prepare
from geoeq.symmetry.subject import Subject
from geoeq.symmetry.suite import CHECKS, Check

__all__ = ["Report", "Result", "report", "report_of"]

Status = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class Result:
    """Result of one check.

    Attributes:
        name: name of the check.
        status: "not applicable" if it could not run; ``detail`` then states why.
        error: largest error, infinite if a value is not finite or an exception was raised; None if not applicable.
        tolerance: largest error that passes.
        errors: error of each output.
        detail: remark.
        meaning: usual cause of a failure; empty if it passed.
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
    """Results of all checks.

    Attributes:
        name: name of the subject.
        results: result of each check, in the order of the table.
        remarks: remarks on what was tested and what was not.
    """

    name: str
    results: tuple[Result, ...]
    remarks: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether at least one check passed, and none failed."""
        statuses = {result.status for result in self.results}
        return "passed" in statuses and "failed" not in statuses

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of failed checks."""
        return tuple(result.name for result in self.results if result.status == "failed")

    @property
    def errors(self) -> dict[str, float]:
        """Largest error of each applicable check."""
        return {result.name: result.error for result in self.results if result.error is not None}

    def __getitem__(self, name: str) -> Result:
        """Return the result of a check by name."""
        for result in self.results:
            if result.name == name:
                return result
        raise InputError(unknown_name("check", name, [result.name for result in self.results]))

    def __str__(self) -> str:
        """Return a table, with the usual causes of failures."""
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
        """Return the report as JSON values; non-finite numbers become strings."""
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


@torch.inference_mode(False)  # where nothing could be differentiated
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
    """Check a model, any function of Data, or any ASE calculator.

    Subjects that support float64 are checked in float64, even networks with float32 parameters. Errors are relative to
    the largest entry of an output, except for the drift of the energy in eV/atom/ps.

    Args:
        candidate: a Model, a module or function of Data that returns a dict of names in ``geoeq.fields`` (in the units
            given there), or an ASE calculator.
        data: test structures; by default random molecules, and crystals if it uses cells. Checks on special structures
            take elements, charges and features from them.
        checks: names in ``CHECKS``; all by default.
        name: name for the table; by default that of the class or function.
        elements: atomic numbers of the random structures; by default those that it supports, found by testing.
        cutoff: cutoff in Å; by default that of the model, or unknown, which is searched up to 8 Å.
        group: "SE(3)" if reflections need not be respected; by default the group stated by the candidate.
        conservative: whether its forces claim to be minus the derivative of its energy. By default they do, except for
            a geoeq Model that predicts forces by a separate head.
        seed: random seed of structures and group elements.

    Raises:
        InputError: it cannot be called, or fails on every structure, or a check is unknown.
        FieldError: an output is not in ``geoeq.fields``.
    """
    chosen = tuple(CHECKS) if checks is None else tuple(checks)
    for check in chosen:
        check_name("check", check, CHECKS)
    subject = prepare(
        candidate,
        data,
        name=name,
        elements=elements,
        cutoff=cutoff,
        group=group,
        conservative=conservative,
        seed=seed,
    )
    return report_of(subject, chosen, seed)


def report_of(subject: Subject, checks: Sequence[str], seed: int = 0) -> Report:
    """Run checks on a prepared subject."""
    results = tuple(_result(check, CHECKS[check], subject, seed) for check in checks)
    return Report(subject.name, results, subject.remarks)


def _result(name: str, check: Check, subject: Subject, seed: int) -> Result:
    tolerance = check.double if subject.precision == torch.float64 else check.single
    if check.turns:
        tolerance = max(tolerance, subject.symmetric_to)
    try:
        measured = check.measure(subject, seed)
    except Exception as error:  # an exception of the subject is a finding
        return Result(name, "failed", math.inf, tolerance, {}, f"it raised {one_line(error)}", check.meaning)
    if isinstance(measured, str):
        return Result(name, "not applicable", None, tolerance, {}, measured, "")
    worst = max((math.inf if math.isnan(error) else error for error in measured.errors.values()), default=math.inf)
    passed = worst <= tolerance
    status: Status = "passed" if passed else "failed"
    return Result(name, status, worst, tolerance, measured.errors, measured.detail, "" if passed else check.meaning)


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
