"""The body of ``geoeq data doctor``: a table, a JSON file and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from geoeq.data_doctor import Diagnosis, diagnose, open_patient
from geoeq.errors import InputError
from geoeq.files import write_text

__all__ = ["doctor"]


def doctor(
    name_or_path: str,
    *,
    sample: bool = False,
    full: bool = False,
    cutoff: float | None = None,
    split: str | None = None,
    targets: Sequence[str] | None = None,
    keys: Sequence[str] = (),
    strict: bool = False,
    output: Path | None = None,
) -> tuple[list[str], bool]:
    """Look through data, and write doctor.json and doctor.png.

    Args:
        name_or_path: a data set, a card, or a file of structures.
        sample: only the records that come with geoeq.
        full: measure all structures.
        cutoff: of neighbours, Å.
        split: a split of the card; by default its first.
        targets: the labels that have to be there.
        keys: of a file, as in "forces=REF_forces"; "forces=null" for what is not to be read.
        strict: a warning counts as an error.
        output: the folder to write into; by default ``runs/doctor-NAME``.

    Returns:
        The lines of the table, and whether the data are healthy.

    Raises:
        GeoeqError: there are no such data, or an argument cannot be meant.
    """
    from geoeq.data_doctor.findings_plot import draw_diagnosis

    found = open_patient(name_or_path, sample=sample, keys=_keys(keys))
    if not isinstance(found, Diagnosis):
        parts = None if split is None else found.split(split)
        found = diagnose(found, split=parts, targets=targets, cutoff=cutoff, full=full)
    folder = output or Path("runs") / f"doctor-{Path(name_or_path).name}"
    text = json.dumps(found.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / "doctor.json", f"{text}\n")
    lines = [*str(found).split("\n"), f"All of it is in '{folder / 'doctor.json'}'."]
    if found.statistics is not None:
        draw_diagnosis(folder / "doctor.png", found.statistics, f"{found.name}: {found.examined:,} structures")
        lines[-1] = f"{lines[-1][:-1]}, histograms in '{folder / 'doctor.png'}'."
    return lines, found.healthy and not (strict and found.of("warning"))


def _keys(pairs: Sequence[str]) -> dict[str, str | None]:
    told: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, key = pair.partition("=")
        if not (name and equals and key):
            raise InputError(f"--key {pair}: write it as in --key forces=REF_forces.")
        told[name] = None if key == "null" else key
    return told
