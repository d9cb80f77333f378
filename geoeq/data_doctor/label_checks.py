"""Labels: those that are wanted are there, nothing that looks like one is passed over, and all are numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from geoeq.data import Dataset
from geoeq.data_doctor.findings import Finding, finding
from geoeq.errors import unknown_name
from geoeq.fields import FIELDS

__all__ = ["check_labels", "check_values"]

#: Names of what is not read that look like labels.
_LABEL = re.compile(r"energ|forc|grad|stress|virial", re.IGNORECASE)

#: Values of an array that are looked at in one go; of larger arrays so many rows in every block.
_BLOCK = 1 << 20

#: Values beyond which the quick form looks at some blocks only.
_MANY = 20_000_000


def check_labels(dataset: Dataset, wanted: Sequence[str] | None = None) -> Iterator[Finding]:
    """Whether the wanted targets are there, and what the reader has passed over.

    Args:
        dataset: all structures.
        wanted: names of targets; None if none is asked for.
    """
    check = "labels"
    for name in wanted or ():
        if name not in dataset.targets:
            yield finding(
                check,
                "error",
                f"There is no '{name}' in the data. {unknown_name('target', name, dataset.targets)}",
                "Say its key in the card, as in 'options: {keys: {forces: REF_forces}}'.",
            )
    for note in dataset.notes:
        if " is not read: only " in note:
            name = note.split(" ", 1)[0]
            yield finding(
                check,
                "error",
                note,
                f"Nothing would be learnt from '{name}': complete it, or leave out the "
                f"structures that lack it, or say 'keys: {{{name}: null}}' in the card to go on without.",
            )
        elif note.startswith("Not read: "):
            names = [name for name in note.removeprefix("Not read: ").rstrip(".").split(", ") if _LABEL.search(name)]
            if names:
                yield finding(
                    check,
                    "warning",
                    f"What looks like a label is not read: {', '.join(names)}.",
                    "If it is one, say its key in the card or with --key, as in forces=REF_forces.",
                )
        else:
            yield finding(check, "note", note)
    has = [
        name
        for name, field in FIELDS.items()
        if name in dataset.targets and field.unit == "eV" and field.level == "graph"
    ]
    if wanted is None and has and "forces" not in dataset.targets and dataset.card.folder == "":
        yield finding(
            check,
            "warning",
            "There are energies and no forces.",
            "If the file has forces, say their key: --key forces=NAME, or in a card.",
        )


def check_values(dataset: Dataset, full: bool) -> Iterator[Finding]:
    """Whether all targets are finite, and not all the same."""
    for name, values in dataset.targets.items():
        if len(values) == 0:
            continue
        bad, low, high = [], np.inf, -np.inf
        step = max(1, _BLOCK // max(1, int(np.prod(values.shape[1:]))))
        starts = range(0, len(values), step)
        skip = 1 if full else max(1, -(-values.size // _MANY))
        for start in starts[::skip]:
            block = np.asarray(values[start : start + step])
            finite = np.isfinite(block).reshape(len(block), -1).all(1)
            bad.append(start + np.flatnonzero(~finite))
            if finite.any():
                low, high = min(low, float(block[finite].min())), max(high, float(block[finite].max()))
        rows = np.concatenate(bad)
        if FIELDS[name].level == "node":
            rows = np.unique(np.searchsorted(dataset.ptr, rows, side="right") - 1)
        if len(rows):
            yield finding(
                "values",
                "error",
                f"'{name}' of {len(rows)} structures is not a finite number.",
                "Leave them out, or find where the value became NaN.",
                rows,
            )
        if low == high and len(dataset) > 1:
            yield finding(
                "values", "error", f"'{name}' is {low:g} everywhere.", "There is nothing to learn: see the keys."
            )
