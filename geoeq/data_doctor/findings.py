"""Findings of the data doctor, and the diagnosis that collects them as a table and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from geoeq.data_doctor.statistics import Statistics

__all__ = ["SEVERITIES", "Diagnosis", "Finding", "Severity", "error", "finding", "note", "warning"]

Severity = Literal["error", "warning", "note"]

#: The most severe first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

#: Number of structures listed by index; the others are only counted.
_LISTED = 5

#: Width of the table in characters.
_WIDTH = 118


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        check: name of the check.
        severity: "error" (makes training useless), "warning" (needs a look) or "note".
        text: the finding, as a sentence.
        remedy: what to do, as a sentence; empty if nothing needs to be done.
        structures: indices of the first affected structures, the worst first.
        count: number of affected structures; 0 if the finding concerns the whole data set.
    """

    check: str
    severity: Severity
    text: str
    remedy: str = ""
    structures: tuple[int, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        """Return the finding as one line."""
        return " ".join(part for part in (self.text, self.where(), self.remedy) if part)

    def where(self) -> str:
        """Return the affected structures as a sentence; empty if the finding concerns the whole data set."""
        if not self.structures:
            return ""
        listed = ", ".join(map(str, self.structures))
        rest = self.count - len(self.structures)
        return f"Structure{'s' if self.count > 1 else ''} {listed}{f' and {rest} others' if rest else ''}."

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {**asdict(self), "structures": list(self.structures)}


def finding(check: str, severity: Severity, text: str, remedy: str = "", structures: Iterable[int] = ()) -> Finding:
    """Create a finding for these structures; the first few are listed."""
    indices = [int(index) for index in structures]
    return Finding(check, severity, text, remedy, tuple(indices[:_LISTED]), len(indices))


def error(check: str, text: str, remedy: str = "", structures: Iterable[int] = ()) -> Finding:
    """Create a finding that makes training useless."""
    return finding(check, "error", text, remedy, structures)


def warning(check: str, text: str, remedy: str = "", structures: Iterable[int] = ()) -> Finding:
    """Create a finding that needs a look."""
    return finding(check, "warning", text, remedy, structures)


def note(check: str, text: str, remedy: str = "", structures: Iterable[int] = ()) -> Finding:
    """Create a finding that needs no action."""
    return finding(check, "note", text, remedy, structures)


@dataclass(frozen=True)
class Diagnosis:
    """All findings for a data set.

    Attributes:
        name: name of the data set or file.
        findings: findings, the most severe first.
        structures: number of structures in the data set; 0 if it cannot be read.
        examined: number of measured structures.
        statistics: statistics for the plot; None if nothing could be measured.
    """

    name: str
    findings: tuple[Finding, ...]
    structures: int = 0
    examined: int = 0
    statistics: Statistics | None = None

    @property
    def chart(self) -> Statistics | None:
        """Old name of ``statistics``, kept for one release."""
        return self.statistics

    def of(self, severity: str) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def healthy(self) -> bool:
        """Whether there are no errors."""
        return not self.of("error")

    def __str__(self) -> str:
        """Return a table: severity, check, and the finding in full sentences."""
        lines = [f"{self.name}: {self.structures} structures, {self.examined} of them measured"]
        width = max((len(finding.check) for finding in self.findings), default=0)
        for finding in self.findings:
            head = f"  {finding.severity.upper() if finding.severity == 'error' else finding.severity:<7}  "
            head += f"{finding.check:<{width}}  "
            lines += textwrap.wrap(
                str(finding), _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
            )
        return "\n".join([*lines, "", self.verdict()])

    def verdict(self) -> str:
        """Return the numbers of errors and warnings as one sentence."""
        counts = [(len(self.of(severity)), severity) for severity in SEVERITIES[:2]]
        parts = [f"{count} {kind}{'' if count == 1 else 's'}" for count, kind in counts if count]
        return f"{' and '.join(parts)}." if parts else "No problems found."

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as JSON values."""
        return {
            "name": self.name,
            "healthy": self.healthy,
            "structures": self.structures,
            "examined": self.examined,
            "findings": [finding.to_dict() for finding in self.findings],
        }
