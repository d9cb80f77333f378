"""The diagnosis of a data set: all findings, as a table and as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from geoeq.data_doctor.findings import SEVERITIES, Finding
from geoeq.data_doctor.survey import Chart

__all__ = ["Diagnosis"]

_WIDTH = 118


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a data set.

    Attributes:
        name: of the data set or file.
        findings: the gravest first.
        structures: in the data set; 0 where it cannot be read.
        examined: of these, how many were measured.
        chart: what was measured, for a picture; None where nothing could be.
    """

    name: str
    findings: tuple[Finding, ...]
    structures: int = 0
    examined: int = 0
    chart: Chart | None = None

    def of(self, severity: str) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not self.of("error")

    def __str__(self) -> str:
        """A table: severity, check, and what was found in whole sentences."""
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
        """One sentence: how many errors and warnings."""
        counted = [(len(self.of(severity)), severity) for severity in SEVERITIES[:2]]
        told = [f"{count} {kind}{'' if count == 1 else 's'}" for count, kind in counted if count]
        return f"{' and '.join(told)}." if told else "Nothing is wrong that could be seen."

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "name": self.name,
            "healthy": self.healthy,
            "structures": self.structures,
            "examined": self.examined,
            "findings": [finding.to_dict() for finding in self.findings],
        }
