"""Comparisons of recipes that are trained for the same time."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from geoeq.errors import RecipeError
from geoeq.files import read_log
from geoeq.training.budget import Budget, parse_budget
from geoeq.training.evaluation.comparison import compare_recipes
from geoeq.training.evaluation.comparison_table import Comparison, Contender
from geoeq.training.parsing import read_recipe
from geoeq.training.recipe import ScheduleSettings
from geoeq.training.schedule import Schedule

BUDGET = 0.4
WIDER = "model.init_args={width: 16, layers: 2, cutoff: 3.0}"


@pytest.fixture
def write(recipe_file: Path):
    """A recipe like the small one with some text replaced: ``write("wide", "width: 8", "width: 16")``."""

    def other(name: str, *replacements: str) -> Path:
        text = recipe_file.read_text()
        for old, new in zip(replacements[::2], replacements[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        path = recipe_file.with_name(f"{name}.yaml")
        path.write_text(text)
        return path

    return other


def compared(files: list[Path], console: Console, folder: Path, **options) -> Comparison:
    return compare_recipes(files, options.pop("budget", BUDGET), console, folder=folder, **options)


def test_a_table_a_picture_and_a_failure(recipe_file: Path, write, console: Console, tmp_path: Path) -> None:
    broken = write("broken", "cutoff: 3.0", "cutoff: 3.0, edge_inputs: [edge_attr]")
    schedule = "epochs: 300\nschedule: {name: cosine, warmup_epochs: 30}"
    wide = write("wide", "width: 8", "width: 16", "epochs: 2", schedule)
    folder = tmp_path / "all"
    comparison = compared([recipe_file, broken, wide], console, folder, settings=["ema=0.9"])

    small, failed, other = comparison.contenders
    assert [entry.name for entry in comparison.finished] == ["small", "wide"]
    assert "broken.yaml: model: edge_attr_width goes with" in failed.failure
    for entry in (small, other):
        results = json.loads((folder / entry.name / "results.json").read_text())
        rows = {row["name"]: row["errors"]["test"]["MAE"] for row in results["targets"][0]["rows"]}
        assert entry.errors == {"atomization_energy": rows["EGNN"]}
        name, value = entry.baselines["atomization_energy"]
        assert name == "linear model on composition"
        assert value == rows[name]
        assert entry.parameters == results["parameters"]
        assert 0 < entry.milliseconds < 1000
        assert BUDGET <= entry.training_seconds < 2 * BUDGET + 0.5
        log = read_log(folder / entry.name / "log.csv")
        assert entry.epochs == len(log)
        assert log[-1]["budget seconds"] == pytest.approx(entry.training_seconds, abs=0.02)
        assert "valid loss" in log[-1]  # the end is always validated
        assert sum("valid loss" in row for row in log) <= 51
    assert other.parameters > small.parameters

    rates = [row["lr"] for row in read_log(folder / "wide" / "log.csv")]
    assert rates[-1] < 0.2e-3  # the cosine ends with the time, although these are not 300 epochs

    lines = (folder / "compare.md").read_text().splitlines()
    assert lines[0] == "# qm7 (sample), atomization energy, split standard: 0.4 s of training each"
    assert lines[2].startswith(
        "| recipe | model | parameters | epochs | training [s] | test MAE [kcal/mol] | inference"
    )
    assert lines[4].startswith("| linear model on composition |")
    assert f"| small | EGNN | {small.parameters:,} | {small.epochs} |" in lines[5]
    assert "failed" in lines[6]
    assert "Commit " in lines[9]
    kept = json.loads((folder / "compare.json").read_text())
    assert kept["budget"] == BUDGET
    assert kept["contenders"][0]["errors"] == small.errors
    assert kept["contenders"][1]["failure"] == failed.failure
    assert (folder / "compare.png").read_bytes()[:4] == b"\x89PNG"
    assert "broken failed" in console.file.getvalue()


def test_finished_runs_are_kept_and_a_stopped_one_goes_on(
    recipe_file: Path, write, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [recipe_file, write("wide", "width: 8", "width: 16")]
    folder = tmp_path / "all"
    from geoeq.models import EGNN

    encode, calls = EGNN.encode, []

    def stopping(self, data, graph):
        calls.append(self.layers[0].width)
        if calls.count(16) == 8:  # amid the second epoch: one call tries the step, five are an epoch
            raise KeyboardInterrupt
        return encode(self, data, graph)

    monkeypatch.setattr(EGNN, "encode", stopping)
    with pytest.raises(KeyboardInterrupt):
        compared(files, console, folder)
    assert [entry["name"] for entry in json.loads((folder / "compare.json").read_text())["contenders"]] == ["small"]
    stamp = (folder / "small" / "checkpoint" / "model.safetensors").stat().st_mtime_ns

    comparison = compared(files, console, folder)
    assert [entry.name for entry in comparison.finished] == ["small", "wide"]
    assert (folder / "small" / "checkpoint" / "model.safetensors").stat().st_mtime_ns == stamp
    assert "small' is finished" in console.file.getvalue()
    assert "Resuming after epoch 1." in console.file.getvalue()
    count = len(calls)
    again = compared(files, console, folder)
    assert again.contenders == comparison.contenders
    assert len(calls) == count  # neither trained nor timed

    with pytest.raises(RecipeError, match=r"small: .*another recipe \(budget is 0\.4 there and 7\.0 here\).*--run"):
        compared(files, console, folder, budget=7.0)
    assert compared(files[:1], console, folder, again=True).contenders[0].name == "small"
    assert (folder / "small" / "checkpoint" / "model.safetensors").stat().st_mtime_ns != stamp


def test_recipes_of_other_tasks_are_refused(recipe_file: Path, write, console: Console, tmp_path: Path) -> None:
    def refusal(*files: Path, settings: tuple[str, ...] = ()) -> str:
        with pytest.raises(RecipeError) as error:
            compared(list(files), console, tmp_path / "all", settings=settings)
        return str(error.value)

    split = write("split", "dataset: qm7", "dataset: qm7\nsplit: other")
    assert refusal(recipe_file, split).startswith(
        "small and split cannot be compared: split is standard in small and other in split."
    )
    threads = write("threads", "threads: 1", "threads: 2")
    assert "threads is 1 in small and 2 in threads" in refusal(recipe_file, threads)
    nbody = write("nbody", "dataset: qm7", "dataset: nbody")
    assert "dataset is qm7 in small and nbody in nbody" in refusal(recipe_file, nbody)
    gap = write("gap", "target: atomization_energy", "target: gap")
    assert "target is atomization_energy in small and gap in gap" in refusal(recipe_file, gap)
    assert "run=elsewhere: compare sets 'run' for each recipe; use --run" in refusal(
        recipe_file, settings=("run=elsewhere",)
    )
    assert "optimizer has no setting 'lrr'" in refusal(recipe_file, settings=("optimizer.lrr=1",))
    assert not (tmp_path / "all").exists()


def test_the_default_split_may_be_named(recipe_file: Path, write, console: Console, tmp_path: Path) -> None:
    named = write("named", "dataset: qm7", "dataset: qm7\nsplit: standard")
    twin = tmp_path / "twin" / "small.yaml"
    twin.parent.mkdir()
    twin.write_text(recipe_file.read_text())
    comparison = compared([recipe_file, named, twin, twin], console, tmp_path / "all", budget=0.05)
    assert [entry.name for entry in comparison.finished] == [f"{tmp_path.name}-small", "named", "twin-small"]


def test_several_targets_have_a_column_each() -> None:
    recipe = dataclasses.replace(read_recipe_of("qm9"), target=["gap", "dipole_norm"])
    comparison = Comparison.start(recipe, 60.0, dict.fromkeys(("commit", "geoeq", "torch", "gpu", "platform"), "?"))
    assert comparison.heading[5:7] == ["test MAE of gap [meV]", "test MAE of dipole norm [D]"]
    assert comparison.rows() == []


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_in_the_table_is_cut_off_on_80_columns(terminal: bool) -> None:
    environment = dict.fromkeys(("commit", "geoeq", "torch", "gpu", "platform"), "?")
    comparison = Comparison.start(read_recipe_of("qm9"), 60.0, environment)
    name, kind = "iterative_se3_transformer-quick", "geoeq.models.IterativeSE3Transformer"
    numbers = {"parameters": 1_238_368, "epochs": 12_345, "training_seconds": 300.1, "milliseconds": 3.392}
    comparison.contenders.append(Contender(name, kind, **numbers, errors={"gap": 123.4}))
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    comparison.print(console)
    lines = console.file.getvalue().splitlines()
    assert not any("…" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)
    start = 1 + next(number for number, line in enumerate(lines) if "───" in line)
    cells = [line.split() for line in lines[start:] if line.strip()]
    assert "".join(row[0] for row in cells) == name
    assert cells[0][2:] == ["1,238,368", "12345", "300.1", "123.4", "3.392"]


def read_recipe_of(dataset: str):
    from geoeq.training.parsing import find_recipe

    return read_recipe(find_recipe(f"{dataset}/egnn"), ["sample=true"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5min", 300), ("1h", 3600), ("1.5 h", 5400), ("2m", 120), (".5s", 0.5)]
)
def test_a_budget_has_a_unit(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["5", "", "min", "5 days", "-5s", "0s", "1e3s", "5min30s", "infh"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(RecipeError, match=r"as in 90s, 5min or 1h, not '"):
        parse_budget(text)


def test_the_watch_stands_still_when_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("geoeq.training.budget.time.monotonic", lambda: now[0])
    budget = Budget(10.0)
    schedule = Schedule(ScheduleSettings("cosine", warmup_epochs=1), steps_per_epoch=20, total_steps=100, budget=budget)
    now[0] += 5
    assert budget.used == 0.0
    budget.run()
    now[0] += 1
    budget.run()
    tenth = 0.5 * (1 + math.cos(math.pi / 10))
    assert schedule.factor(step=15) == pytest.approx(tenth * 16 / 21)  # warm-up goes by steps
    assert schedule.factor(step=3) == pytest.approx(tenth * 0.5)  # or faster, to end with a fifth of the time
    assert schedule.factor(step=77) == pytest.approx(tenth)
    now[0] += 5
    budget.stop()
    budget.stop()
    now[0] += 50
    assert budget.used == 6.0
    assert schedule.factor(step=0) == pytest.approx(0.5 * (1 + math.cos(0.6 * math.pi)))
    budget.restore(12.0)
    assert budget.fraction == 1.0
    assert math.isclose(schedule.factor(step=0), 0.0, abs_tol=1e-12)
