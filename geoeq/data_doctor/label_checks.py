"""Check labels: required ones exist, none is overlooked, and all are finite and not constant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from geoeq.data import Dataset
from geoeq.data_doctor.findings import Finding, error, note, warning
from geoeq.errors import unknown_name
from geoeq.fields import FIELDS

__all__ = ["check_labels", "check_values"]

#: Names of unread keys that look like labels.
_LABEL = re.compile(r"energ|forc|grad|stress|virial", re.IGNORECASE)

#: Number of values read at once.
_BLOCK = 1 << 20

#: Number of values above which the quick form reads only some blocks.
_MANY = 20_000_000


def check_labels(dataset: Dataset, wanted: Sequence[str] | None = None) -> Iterator[Finding]:
    """Check that required targets exist, and report what the reader ignored.

    Args:
        dataset: all structures.
        wanted: names of required targets; None if there are none.
    """
    check = "labels"
    for name in wanted or ():
        if name not in dataset.targets:
            yield error(
                check,
                f"There is no '{name}' in the data. {unknown_name('target', name, dataset.targets)}",
                "Specify its key in the card, as in 'options: {keys: {forces: REF_forces}}'.",
            )
    for remark in dataset.notes:
        if " is not read: only " in remark:
            name = remark.split(" ", 1)[0]
            yield error(
                check,
                remark,
                f"'{name}' could not be learnt: complete it, remove the structures that lack it, or ignore it with "
                f"'keys: {{{name}: null}}' in the card.",
            )
        elif remark.startswith("Not read: "):
            names = [name for name in remark.removeprefix("Not read: ").rstrip(".").split(", ") if _LABEL.search(name)]
            if names:
                yield warning(
                    check,
                    f"These keys look like labels and are not read: {', '.join(names)}.",
                    "If one is a label, specify its key in the card or with --key, as in forces=REF_forces.",
                )
        else:
            yield note(check, remark)
    has_energy = any(
        name in dataset.targets and field.unit == "eV" and field.level == "graph" for name, field in FIELDS.items()
    )
    if wanted is None and has_energy and "forces" not in dataset.targets and dataset.card.folder == "":
        yield warning(
            check,
            "There are energies and no forces.",
            "If the file has forces, specify their key: --key forces=NAME, or in a card.",
        )


def check_values(dataset: Dataset, full: bool) -> Iterator[Finding]:
    """Check that all targets are finite and not constant."""
    for name, values in dataset.targets.items():
        if len(values) == 0:
            continue
        bad, low, high = [], np.inf, -np.inf
        step = max(1, _BLOCK // max(1, int(np.prod(values.shape[1:]))))
        skip = 1 if full else max(1, -(-values.size // _MANY))
        for start in range(0, len(values), step)[::skip]:
            block = np.asarray(values[start : start + step])
            finite = np.isfinite(block).reshape(len(block), -1).all(1)
            bad.append(start + np.flatnonzero(~finite))
            if finite.any():
                low, high = min(low, float(block[finite].min())), max(high, float(block[finite].max()))
        rows = np.concatenate(bad)
        if FIELDS[name].level == "node":
            rows = np.unique(np.searchsorted(dataset.ptr, rows, side="right") - 1)
        if len(rows):
            yield error(
                "values",
                f"'{name}' of {len(rows)} structures is not a finite number.",
                "Remove them, or find where the value became NaN.",
                rows,
            )
        if low == high and len(dataset) > 1:
            yield error("values", f"'{name}' is {low:g} everywhere.", "Nothing can be learnt: check the keys.")
