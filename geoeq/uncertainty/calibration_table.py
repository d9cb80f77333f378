"""What was measured of a calibration, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from geoeq.uncertainty.calibration import Calibration
from geoeq.units import format_number

__all__ = ["print_calibration"]


def print_calibration(
    console: Console, measured: Mapping[str, Mapping[str, Calibration]], units: Mapping[str, str], title: str
) -> None:
    """Print a table for each output, with a row for each part of the split.

    Args:
        console: where to.
        measured: output -> part -> numbers, in the units.
        units: output -> unit; "1" for none.
        title: of the tables.
    """
    for name, parts in measured.items():
        unit = "" if units[name] == "1" else f" [{units[name]}]"
        heading = escape(f"{title}: {name}{unit}")
        table = Table(title=heading, title_justify="left", title_style="bold", header_style="")
        table.add_column("", no_wrap=True)
        for column in ("RMSE", "mean σ", "NLL", "area", "in 1σ", "in 2σ", "Spearman"):
            table.add_column(column, justify="right", no_wrap=True)
        for part, found in parts.items():
            table.add_row(
                part,
                format_number(found.rmse),
                format_number(found.deviation),
                f"{found.nll:.3f}",
                f"{found.miscalibration:.3f}",
                f"{100 * found.within_1:.1f}%",
                f"{100 * found.within_2:.1f}%",
                f"{found.spearman:.2f}",
            )
        console.print(table)
        names, apart = ", ".join(parts), ", ".join(f"{100 * found.ence:.0f}%" for found in parts.values())
        factors = ", ".join(f"{found.median_factor:.2f}" for found in parts.values())
        console.print(
            f"Errors are off their estimates by {apart} (ENCE; {names}). By the median of the errors, estimates would "
            f"be {factors} times as large.",
            highlight=False,
        )
        told = ", ".join(part for part, found in parts.items() if found.heavy_tails)
        if told:
            console.print(
                f"Tails of the errors are heavier than a Gaussian's ({told}): the scale is that of a few large errors, "
                "and most are better than their estimates. Look at the picture.",
                highlight=False,
                style="yellow",
            )
    console.print(
        "Of a Gaussian 68.3% are within 1σ, 95.4% within 2σ, and the area (miscalibration) is 0. The scale was found "
        "on valid: the measure is test.",
        highlight=False,
        style="dim",
    )
