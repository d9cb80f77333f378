"""The progress of a training."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from geoeq.training.parsing import read_recipe
from geoeq.training.progress import ProgressReport
from geoeq.training.run import train
from geoeq.units import format_number


def test_a_line_has_errors_in_real_units() -> None:
    console = Console(file=io.StringIO(), width=200)
    progress = ProgressReport(console, 10, {"gap": "meV"}, every=0.0)
    progress.epoch_done(3, {"train loss": 0.1, "train MAE gap": 51.234, "valid loss": 0.2, "valid MAE gap": 60.0})
    assert console.file.getvalue() == "epoch 3/10  MAE train 51.23, valid 60.00 meV\n"


def test_several_targets_are_told_apart() -> None:
    console = Console(file=io.StringIO(), width=200)
    progress = ProgressReport(console, 10, {"gap": "meV", "positions": ""}, every=0.0)
    progress.epoch_done(1, {"train MAE gap": 51.234, "train MSE positions": 0.00712})
    assert console.file.getvalue() == "epoch 1/10  gap MAE train 51.23 meV; positions MSE train 0.007120\n"


def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(recipe_file: Path) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    train(read_recipe(recipe_file, [f"run={recipe_file.parent}/run"]), recipe_file, console)
    text = console.file.getvalue()
    assert "━" in text
    assert "epoch 2/2" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is hidden and shown again


def test_numbers_have_four_digits() -> None:
    values = [0.0, 1.23456e-5, 0.0071234, 0.5, 12.3456, 1234.56, 123456.7]
    assert [format_number(value) for value in values] == [
        "0.000", "1.23e-05", "0.007123", "0.5000", "12.35", "1235", "123457"
    ]  # fmt: skip
