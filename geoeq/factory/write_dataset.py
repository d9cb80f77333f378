"""Write the results of all items as a data set: arrays, card, and tables of molecules and failures."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from geoeq.data.card import Card, Split, Target, read_card
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.preparation.streaming import write_chunks
from geoeq.data.store import INDEX
from geoeq.errors import DataError
from geoeq.factory.molecule_split import Division, divide
from geoeq.factory.sampling import free_atoms
from geoeq.factory.starts import Start
from geoeq.factory.task_results import Failure, Result
from geoeq.fields import FIELDS
from geoeq.files import file_sha256, write_text

__all__ = ["Summary", "write_set"]

#: Units of tables, where they differ from those of ``geoeq.fields``.
_REPORTED = {"energy": "meV", "adsorption_energy": "meV", "relaxed_energy": "meV", "forces": "meV/Å", "dipole": "D"}

_ARRAYS, _FAILURES = "structures", "failures.csv"


@dataclass(frozen=True)
class Summary:
    """Summary of a data set.

    Attributes:
        card: path of the card.
        structures: number of labelled structures.
        sizes: numbers of structures in train, valid and test.
        division: description of the split.
        failures: the structures without a label.
    """

    card: Path
    structures: int
    sizes: Mapping[str, int]
    division: str
    failures: tuple[Failure, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the summary of a finished data set.

        Raises:
            DataError: its card was altered and is no longer valid.
        """
        card = read_card(folder / "card.yaml")
        split = card.splits[card.default_split]
        with (folder / _FAILURES).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        failures = tuple(Failure(row["name"], int(row["number"]), row["step"], row["reason"]) for row in rows)
        return cls(folder / "card.yaml", sum(split.sizes.values()), split.sizes, split.source or "", failures)


def write_set(folder: Path, results: Sequence[Path], failures: Sequence[Failure], made: Mapping[str, Any]) -> Summary:
    """Write the arrays, the tables, and finally the card.

    Args:
        folder: folder of the data set.
        results: files of labelled frames, in order.
        failures: failures of earlier steps.
        made: how the data were made, for the card: "title", "citation", "seed", and further details.

    Raises:
        DataError: no structure could be labelled; the message gives the first reason.
    """
    starts: list[tuple[Path, Start, int]] = []
    failed = list(failures)
    fields: list[str] = []
    for path in results:
        result = Result.read(path)
        failed += result.failures
        if result.start is not None:
            starts.append((path, Start.from_dict(result.start), len(result.frames["energy"])))
            labels = [name for name in result.frames if name in FIELDS and name != "positions"]
            fields = [name for name in fields or labels if name in labels]  # a crystal has no dipole
    _write_failures(folder / _FAILURES, failed)
    if not starts:
        raise DataError(
            f"{folder}: no structure could be labelled. The first of {len(failed)} reasons: {_reason(failed)}."
        )
    division = divide([start.group for _, start, _ in starts], [count for *_, count in starts], int(made["seed"]))
    order = [starts[index] for index in division.order]
    card = _card(folder, fields, division, made)
    groups = {group: number for number, group in enumerate(dict.fromkeys(start.group for _, start, _ in starts))}
    write_chunks(folder / _ARRAYS, card, chunk_frames(_frames(order, fields, groups)), {"name": card.name})
    _write_molecules(folder / "molecules.csv", starts, groups, division.parts)
    _write_card(folder / "card.yaml", card, file_sha256(folder / _ARRAYS / INDEX), made)
    return Summary.read(folder)


def _reason(failures: Sequence[Failure]) -> str:
    return f"{failures[0].name}, {failures[0].step}: {failures[0].reason}" if failures else "none"


def _frames(
    order: Sequence[tuple[Path, Start, int]], fields: Sequence[str], groups: Mapping[str, int]
) -> Iterator[Frame]:
    periodic = any(start.atoms.pbc.any() for _, start, _ in order)
    surfaces = any(start.reference is not None for _, start, _ in order)
    constrained = surfaces or any(start.atoms.constraints for _, start, _ in order)
    for number, (path, start, count) in enumerate(order):
        arrays, atoms = Result.read(path).frames, start.atoms
        nodes = {"tags": atoms.get_tags().astype(np.uint8)} if surfaces else {}
        nodes |= {"fixed": ~free_atoms(atoms)} if constrained else {}
        for frame in range(count):
            values = {name: arrays[name][frame] for name in fields}
            yield Frame(
                positions=arrays["positions"][frame],
                numbers=atoms.numbers.astype(np.uint8),
                of_graph={name: value for name, value in values.items() if FIELDS[name].level == "graph"},
                of_nodes={name: value for name, value in values.items() if FIELDS[name].level == "node"},
                nodes=nodes,
                graphs={
                    "molecule": groups[start.group],
                    "sid": number,
                    "fid": frame,
                    "total_charge": start.charge,
                    "multiplicity": start.multiplicity,
                },
                cell=atoms.cell.array if periodic else None,
                pbc=atoms.pbc if periodic else None,
                where=f"{start.name}, {start.number}, structure {frame}",
            )


def _card(folder: Path, fields: Sequence[str], division: Division, made: Mapping[str, Any]) -> Card:
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_") or "made"
    split = Split(division.method, dict(division.sizes), seed=division.seed, source=division.source)
    return Card(
        name=name,
        title=str(made["title"]),
        reader="geoeq.data.store_reader.StoreReader",
        licence="yours: made by geoeq data make",
        citation=str(made["citation"]),
        targets={name: Target(name, FIELDS[name].unit, _REPORTED.get(name, FIELDS[name].unit)) for name in fields},
        splits={division.name: split},
        default_split=division.name,
        default_target="energy",
        folder=str(folder),
    )


def _write_card(path: Path, card: Card, sha256: str, made: Mapping[str, Any]) -> None:
    split = card.splits[card.default_split]
    seed = {} if split.seed is None else {"seed": split.seed}
    content = {
        "name": card.name,
        "title": card.title,
        "reader": card.reader,
        "licence": card.licence,
        "citation": card.citation,
        "sources": [{"file": f"{_ARRAYS}/{INDEX}", "sha256": sha256, "shipped": True}],
        "targets": {name: dict(vars(target)) for name, target in card.targets.items()},
        "default_target": card.default_target,
        "splits": {
            card.default_split: {"method": split.method, **seed, "sizes": dict(split.sizes), "source": split.source}
        },
        "default_split": card.default_split,
        "made": {name: value for name, value in made.items() if name not in ("title", "citation")},
    }
    levels = ", ".join(f"{name} of a {FIELDS[name].level} ({FIELDS[name].unit})" for name in card.targets)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    write_text(path, f"# {levels}\n{text}")


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "number", "step", "reason"])
        writer.writerows([failure.name, failure.number, failure.step, failure.reason] for failure in failures)


def _write_molecules(
    path: Path, starts: Sequence[tuple[Path, Start, int]], groups: Mapping[str, int], parts: Sequence[str]
) -> None:
    """Write one row per molecule or system; if its starts were divided, one per part of the split."""
    rows: dict[tuple[int, str], list[tuple[Start, int]]] = {}
    for (_, start, count), part in zip(starts, parts):
        rows.setdefault((groups[start.group], part), []).append((start, count))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["molecule", "name", "charge", "multiplicity", "part", "starts", "structures"])
        for (number, part), items in rows.items():
            first = items[0][0]
            counts = [len(items), sum(count for _, count in items)]
            writer.writerow([number, first.name, first.charge, first.multiplicity, part, *counts])
