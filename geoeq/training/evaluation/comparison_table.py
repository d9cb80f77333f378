"""Table of a comparison, as Markdown, as JSON, and on a terminal."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from geoeq.data import load
from geoeq.errors import RecipeError
from geoeq.files import write_json, write_text
from geoeq.training.evaluation.metrics import headline, metric_unit
from geoeq.units import counted, format_number

if TYPE_CHECKING:
    from rich.console import Console

    from geoeq.training.recipe import Recipe

__all__ = ["Comparison", "Contender"]


@dataclass(frozen=True)
class Contender:
    """One recipe of a comparison with its results.

    Attributes:
        name: name of the recipe and its run folder.
        class_path: class path of its model.
        parameters: number of parameters.
        epochs: number of epochs within the budget; the last one may be incomplete.
        best_epoch: epoch of the best weights.
        training_seconds: time of the training steps in seconds.
        milliseconds: inference time in milliseconds per structure.
        errors: target -> error on the test set.
        baselines: target -> name and error of the best baseline.
        failure: reason why there are no results; empty if there are.
    """

    name: str
    class_path: str
    parameters: int = 0
    epochs: int = 0
    best_epoch: int = 0
    training_seconds: float = 0.0
    milliseconds: float = 0.0
    errors: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, tuple[str, float]] = field(default_factory=dict)
    failure: str = ""

    @property
    def model(self) -> str:
        """Name of the model's class."""
        return self.class_path.rpartition(".")[2]


@dataclass
class Comparison:
    """The task of a comparison, and the contenders so far.

    Attributes:
        dataset: name of the data set.
        sample: whether only the records that ship with geoeq were used.
        split: name of the split.
        units: target -> unit of its metric; empty if it has none.
        budget: seconds of training per recipe.
        environment: versions, commit and machine.
        contenders: recipes with their results, in the order of the command line.
    """

    dataset: str
    sample: bool
    split: str
    units: dict[str, str]
    budget: float
    environment: dict[str, str | int | None]
    contenders: list[Contender] = field(default_factory=list)

    @classmethod
    def start(cls, recipe: Recipe, budget: float, environment: dict[str, str | int | None]) -> Self:
        """Return a comparison for the task of ``recipe``, without contenders.

        Raises:
            RecipeError: the data set has no such target.
        """
        card = load(recipe.dataset, sample=recipe.sample, trust=True).card
        for name in recipe.targets:
            if name not in card.targets:
                raise RecipeError(f"{recipe.dataset} has no target '{name}'. Known: {', '.join(card.targets)}.")
        units = {name: metric_unit(headline(name), card.targets[name].report) for name in recipe.targets}
        split = recipe.split or card.default_split
        threads = {} if recipe.threads is None else {"cpu_threads": recipe.threads}
        return cls(recipe.dataset, recipe.sample, split, units, budget, {**environment, **threads})

    def measure(self, target: str) -> str:
        """Return the metric of a target with its unit: ``MAE of gap [meV]``."""
        unit = f" [{self.units[target]}]" if self.units[target] else ""
        return f"{headline(target)} of {target.replace('_', ' ')}{unit}"

    @property
    def finished(self) -> list[Contender]:
        """Contenders that did not fail."""
        return [entry for entry in self.contenders if not entry.failure]

    @property
    def heading(self) -> list[str]:
        """Column headings."""
        errors = [f"test {self.measure(target)}" for target in self.units]
        if len(errors) == 1:  # the title names the target
            errors = [text.replace(f" of {target.replace('_', ' ')}", "") for text, target in zip(errors, self.units)]
        return ["recipe", "model", "parameters", "epochs", "training [s]", *errors, "inference [ms/structure]"]

    @property
    def title(self) -> str:
        """Task and budget in a line."""
        sample = " (sample)" if self.sample else ""
        targets = ", ".join(self.units).replace("_", " ")
        return f"{self.dataset}{sample}, {targets}, split {self.split}: {self.budget:g} s of training each"

    def rows(self) -> list[list[str]]:
        """Return the cells: the best baseline, then the contenders in their order."""
        rows = []
        for target, (name, value) in (self.finished[0].baselines if self.finished else {}).items():
            cells = [format_number(value) if column == target else "" for column in self.units]
            rows.append([name, "", "", "", "", *cells, ""])
        for entry in self.contenders:
            if entry.failure:
                rows.append([entry.name, entry.model, "", "", "", *(["failed"] + [""] * (len(self.units) - 1)), ""])
                continue
            errors = [format_number(entry.errors[target]) for target in self.units]
            counts = [f"{entry.parameters:,}", str(entry.epochs), f"{entry.training_seconds:.1f}"]
            rows.append([entry.name, entry.model, *counts, *errors, format_number(entry.milliseconds)])
        return rows

    def markdown(self) -> str:
        """Return the table with its title, versions and failures as Markdown."""
        environment = self.environment
        align = ["---", "---"] + ["---:"] * (len(self.heading) - 2)
        lines = [
            f"# {self.title}",
            "",
            *(f"| {' | '.join(cells)} |" for cells in (self.heading, align, *self.rows())),
            "",
            f"Commit {environment['commit']}, geoeq {environment['geoeq']}, torch {environment['torch']}, "
            f"{environment['gpu'] or environment['platform']}, "
            f"{counted(int(environment['cpu_threads'] or 0), 'CPU thread')}.",
        ]
        lines += [f"\n{entry.name} failed: {entry.failure}" for entry in self.contenders if entry.failure]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return dataclasses.asdict(self)

    def write(self, folder: Path) -> None:
        """Write compare.md and compare.json into ``folder``."""
        write_text(folder / "compare.md", self.markdown())
        write_json(folder / "compare.json", self.to_dict())

    def print(self, console: Console) -> None:
        """Print the table, with names folded to the width of the console; compare.md contains them in full."""
        from rich.box import SIMPLE_HEAD
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=escape(self.title), title_justify="left", title_style="bold", header_style="", box=SIMPLE_HEAD
        )
        table.padding = (0, 0)
        for index, name in enumerate(self.heading):
            head = escape(name.replace(" [", "\n[").replace("test ", "test\n").replace("/structure", "\n/structure"))
            text = index < 2
            table.add_column(head, justify="left" if text else "right", no_wrap=not text, overflow="fold")
        for row in self.rows():
            table.add_row(*map(escape, row))
        console.print(table, crop=False)
