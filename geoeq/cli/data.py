"""What ``geoeq data`` does; the lines that these return are printed by the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geoeq.data import load
from geoeq.data.card import Card, card_path, is_name, load_card, names, read_card
from geoeq.data.dataset import Dataset
from geoeq.data.preparation.cache import cache_folder, prepare
from geoeq.data.preparation.fetch import fetch_sources
from geoeq.data.ragged import Array
from geoeq.data.store import INDEX
from geoeq.fields import FIELDS
from geoeq.resources import cache_root, is_shared

__all__ = ["fetch_lines", "info_lines", "list_lines", "prepare_lines"]

#: Rows of an array that are looked at in one go.
_BLOCK = 1 << 20


def list_lines(root: str | Path | None = None) -> list[str]:
    """One line for each data set: name, title, and whether it is prepared."""
    cards = [load_card(name) for name in names()]
    width = max(len(card.name) for card in cards)
    return [f"{card.name:<{width}}  {card.title}  [{_state(card, root)}]" for card in cards]


def fetch_lines(name: str, root: str | Path | None = None) -> list[str]:
    """Fetch the files of a data set; one line for each file.

    Raises:
        DataError: a file cannot be fetched, or is not the one of the card.
    """
    card = _card(name)
    if not card.sources:
        return [f"{card.name} needs no files: geoeq makes the data itself. Next: geoeq data prepare {name}"]
    paths = fetch_sources(card, cache_root(root))
    return [f"{file}  {path}" for file, path in paths.items()]


def prepare_lines(
    name: str,
    sample: bool = False,
    root: str | Path | None = None,
    processes: int | None = None,
    dask: str | None = None,
) -> list[str]:
    """Fetch and convert a data set; says where the cache is and what is in it.

    Args:
        name: of the data set.
        sample: only the records that come with geoeq.
        root: the folder of all caches.
        processes: that read at once.
        dask: the address of a scheduler whose workers read in their place.

    Raises:
        DataError: a file cannot be had, or is not what the card says.
    """
    card = _card(name)
    folder = prepare(card, sample, root, processes, dask)
    return [f"cache: {folder}", *_contents(Dataset.open(card, folder, sample))]


def info_lines(name_or_file: str, sample: bool = False, root: str | Path | None = None) -> list[str]:
    """What is known about a data set, or what is in a file of structures.

    Of a data set that is prepared every checksum is compared. A sample is prepared if it is not yet.

    Raises:
        DataError: there is no such data set or file, or a cached file was altered.
    """
    if card_path(name_or_file) is None and not is_name(name_or_file):
        return _contents(load(name_or_file))
    card = _card(name_or_file)
    lines = [f"{card.name}: {card.title}", f"licence: {card.licence}", f"citation: {card.citation}"]
    for name, variant in card.variants.items():
        chosen = " (this one)" if name == card.variant else ""
        lines.append(f"variant {card.name}/{name}{chosen}: {variant.title}")
    for source in card.sources:
        doubts = "; address not checked by geoeq" if source.unverified else ""
        place = _with_the_card(card) if source.shipped else f"{source.url}{doubts}"
        lines.append(f"file {source.file}: {place}")
    for name, split in card.splits.items():
        default = " (default)" if name == card.default_split else ""
        named = split.lists or {}
        sizes = ", ".join(f"{part} {' + '.join(named.get(part, ())) or size}" for part, size in split.sizes.items())
        lines.append(f"split {name}{default}: {sizes}; {split.method}, seed {split.seed}")
    lines.append(f"state: {_state(card, root)}")
    folder = prepare(card, True, root) if sample else cache_folder(card, False, root)
    if (folder / INDEX).exists():
        return [*lines, *_contents(Dataset.open(card, folder, sample, verify=True))]
    return [*lines, *[f"target {name}: {FIELDS[name].description}; in {t.report}" for name, t in card.targets.items()]]


def _card(name: str) -> Card:
    path = card_path(name)
    return load_card(name) if path is None else read_card(path)


def _with_the_card(card: Card) -> str:
    return "comes with geoeq" if is_shared(Path(card.folder)) else "there, beside the card"


def _state(card: Card, root: str | Path | None) -> str:
    if (cache_folder(card, False, root) / INDEX).exists():
        return "prepared"
    ready = all(source.shipped for source in card.sources)
    return _with_the_card(card) if ready else f"not fetched; sample: {'yes' if card.sample else 'no'}"


def _contents(dataset: Dataset) -> list[str]:
    from ase.data import chemical_symbols

    counts = np.diff(dataset.ptr)
    lines = [
        f"structures: {len(dataset)}, of {counts.min()} to {counts.max()} atoms (mean {counts.mean():.1f}), "
        f"{len(dataset.positions)} atoms altogether"
    ]
    if dataset.numbers is not None:
        counted = [np.bincount(block, minlength=len(chemical_symbols)) for block in _blocks(dataset.numbers)]
        times = np.sum(counted, axis=0)
        lines.append("elements: " + ", ".join(f"{chemical_symbols[z]} {times[z]}" for z in np.flatnonzero(times)))
    for name, values in dataset.targets.items():
        target = dataset.card.targets[name]
        unit = "no unit" if target.report == "1" else target.report
        mean, deviation, least, most = (number * target.to_report(name) for number in _statistics(values))
        lines.append(
            f"target {name} ({unit}): mean {mean:.6g}, standard deviation {deviation:.6g}, "
            f"from {least:.6g} to {most:.6g}"
        )
    return lines + [f"note: {note}" for note in dataset.notes]


def _statistics(values: Array) -> tuple[float, float, float, float]:
    """Mean, standard deviation, least and greatest; an array may be larger than the memory."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in _blocks(values)) / values.size
    squares = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in _blocks(values))
    least, most = (pick(float(pick_in(b)) for b in _blocks(values)) for pick, pick_in in ((min, np.min), (max, np.max)))
    return mean, (squares / values.size) ** 0.5, least, most


def _blocks(values: Array) -> Iterator[Array]:
    return (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
