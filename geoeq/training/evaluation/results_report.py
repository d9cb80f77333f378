"""Results as a table for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geoeq.training.evaluation.metrics import headline, metric_unit
from geoeq.training.evaluation.results import TargetResults
from geoeq.units import format_number

__all__ = ["print_results"]


def print_results(console: Console, results: TargetResults, dataset: str, sizes: dict[str, int]) -> None:
    """Print the errors of one target: baselines, published errors, and the model last.

    Args:
        console: where to.
        results: of one target.
        dataset: its name.
        sizes: part -> number of graphs; the parts are the groups of columns.
    """
    metrics = ("MSE", "MAE") if headline(results.target) == "MSE" else ("MAE", "RMSE")
    parts = [part for part in sizes if part in results.model.errors]
    unit = "" if results.unit == "1" else f" [{results.unit}]"
    title = escape(f"{dataset}: {results.target}{unit}")
    table = Table(title=title, title_justify="left", title_style="bold", header_style="")
    table.add_column("", no_wrap=True)
    for part in parts:
        for metric in metrics:
            squared = metric_unit(metric, results.unit)
            note = f" [{squared}]" if metric == "MSE" and squared else ""
            table.add_column(escape(f"{part}\n{metric}{note}"), justify="right", no_wrap=True)
    for index, row in enumerate(results.rows):
        name = f"{row.name} (published)" if row.kind == "published" else row.name
        cells = [
            _format(row.errors[part][metric], row.kind) if metric in row.errors.get(part, {}) else ""
            for part in parts
            for metric in metrics
        ]
        last = index + 1 == len(results.rows)
        ends = not last and results.rows[index + 1].kind != row.kind
        table.add_row(name, *cells, style="bold" if row.kind == "model" else "", end_section=ends)
    console.print(table)
    counts = ", ".join(f"{part} {count}" for part, count in sizes.items())
    console.print(f"Structures: {counts}.", highlight=False, style="dim")
    for source in results.sources:
        console.print(f"Published: {source}", highlight=False, style="dim", soft_wrap=True)


def _format(value: float, kind: str) -> str:
    return f"{value:g}" if kind == "published" else format_number(value)  # no digits that a paper does not give
