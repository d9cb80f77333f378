"""What is wrong with data, before a network is trained on them: units, signs, outliers, copies, leaks."""

from __future__ import annotations

from geoeq.data_doctor.diagnosis import CHECKS, diagnose
from geoeq.data_doctor.energies import residuals
from geoeq.data_doctor.findings import Finding
from geoeq.data_doctor.findings_report import Diagnosis
from geoeq.data_doctor.opening import open_patient
from geoeq.data_doctor.survey import Chart

__all__ = ["CHECKS", "Chart", "Diagnosis", "Finding", "diagnose", "open_patient", "residuals"]
