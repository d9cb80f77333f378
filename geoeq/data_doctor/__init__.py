"""Find problems in data before training: wrong units and signs, outliers, duplicates, leaks between splits."""

from __future__ import annotations

from geoeq.data_doctor.diagnosis import CHECKS, diagnose, open_patient
from geoeq.data_doctor.energies import residuals
from geoeq.data_doctor.findings import Diagnosis, Finding
from geoeq.data_doctor.statistics import Statistics

#: Old name of ``Statistics``, kept for one release.
Chart = Statistics

__all__ = ["CHECKS", "Chart", "Diagnosis", "Finding", "Statistics", "diagnose", "open_patient", "residuals"]
