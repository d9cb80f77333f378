"""Comparison of geoeq's networks with the numbers of their authors' code."""

from geoeq.parity.cases import SHIPPED, CaseResult, check_case, run, shipped_cases
from geoeq.parity.networks import NETWORKS

__all__ = ["NETWORKS", "SHIPPED", "CaseResult", "check_case", "run", "shipped_cases"]
