"""The table of a comparison on a terminal of 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from geoeq.training.evaluation.comparison_table import Comparison, Contender


def test_the_table_fits_80_columns_without_losing_numbers():
    environment = {"commit": "x", "geoeq": "1", "torch": "2", "gpu": None, "platform": "linux", "cpu_threads": 1}
    comparison = Comparison("qm7", False, "random", {"atomization_energy": "kcal/mol"}, 300.0, environment)
    baseline = {"atomization_energy": ("linear model on composition", 16.2)}
    for name, network, parameters in (("egnn", "EGNN", 123_456), ("equiformer-v2-small", "EquiformerV2", 12_345_678)):
        errors = {"atomization_energy": 12.34}
        path = f"geoeq.models.{network}"
        comparison.contenders.append(Contender(name, path, parameters, 120, 99, 300.2, 0.123, errors, baseline))
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    comparison.print(console)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= 80
    for cell in ("12,345,678", "300.2", "12.34", "16.20", "0.1230", "[kcal/mol]"):
        assert cell in text
    assert "1 CPU thread." in comparison.markdown()
