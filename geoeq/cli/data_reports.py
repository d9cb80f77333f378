"""The reports of ``geoeq data list | fetch | prepare | info``, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geoeq.data import load
from geoeq.data.card import Card, card_path, is_name, load_card, names, read_card
from geoeq.data.dataset import Dataset
from geoeq.data.preparation.cache import cache_folder, prepare
from geoeq.data.preparation.fetch import chosen_sources, fetch_sources, unverified
from geoeq.data.ragged import Array
from geoeq.data.splits import PARTS
from geoeq.data.store import INDEX
from geoeq.fields import FIELDS
from geoeq.resources import cache_root, is_shared
from geoeq.trust import Trust

__all__ = ["fetch_lines", "info_lines", "list_lines", "prepare_lines"]

#: Rows of an array that are read at once; an array may be larger than the memory.
_BLOCK = 1 << 20


def list_lines(root: str | Path | None = None) -> list[str]:
    """Return one line per data set: its name, its title, and whether it is prepared."""
    cards = [load_card(name) for name in names()]
    width = max(len(card.name) for card in cards)
    return [f"{card.name:<{width}}  {card.title}  [{_state(card, root)}]" for card in cards]


def fetch_lines(name: str, root: str | Path | None = None, trust: Trust = False) -> list[str]:
    """Fetch the files of a data set, and return one line per file.

    Raises:
        DataError: a file cannot be fetched, or its checksum is not the one in the card.
    """
    card = _card(name, trust)
    if not card.sources:
        return [f"{card.name} needs no files: geoeq generates the data. Next: geoeq data prepare {name}"]
    paths = fetch_sources(card, cache_root(root))
    lines = [f"{file}  {path}" for file, path in paths.items()]
    return lines + [f"note: {note}" for note in unverified(chosen_sources(card, cache_root(root)))]


def prepare_lines(
    name: str,
    sample: bool = False,
    root: str | Path | None = None,
    processes: int | None = None,
    dask: str | None = None,
    trust: Trust = False,
) -> list[str]:
    """Fetch and convert a data set, and report where the cache is and what it contains.

    Args:
        name: name of a data set, or path of a card.
        sample: whether to prepare only the sample that is shipped with geoeq.
        root: folder of all caches; None for the default of ``cache_root``.
        processes: number of processes that read.
        dask: address of a Dask scheduler whose workers read instead.
        trust: modules outside geoeq that the card may name, as for ``load``.

    Raises:
        DataError: a file is not available, or does not agree with the card.
    """
    card = _card(name, trust)
    folder = prepare(card, sample, root, processes, dask)
    return [f"cache: {folder}", *_content_lines(Dataset.open(card, folder, sample))]


def info_lines(
    name_or_file: str, sample: bool = False, root: str | Path | None = None, trust: Trust = False
) -> list[str]:
    """Describe a data set or a structure file.

    Every checksum of a prepared data set is verified. A sample is prepared if necessary.

    Raises:
        DataError: the data set or file does not exist, or a cached file was altered.
    """
    if card_path(name_or_file) is None and not is_name(name_or_file):
        return _content_lines(load(name_or_file))
    card = _card(name_or_file, trust)
    lines = [f"{card.name}: {card.title}", f"licence: {card.licence}", f"citation: {card.citation}"]
    for name, variant in card.variants.items():
        selected = " (this one)" if name == card.variant else ""
        lines.append(f"variant {card.name}/{name}{selected}: {variant.title}")
    for source in card.sources:
        warning = "; geoeq's developers have not verified this address" if source.unverified else ""
        origin = _shipped_where(card) if source.shipped else f"{source.url}{warning}"
        lines.append(f"file {source.file}: {origin}")
    for name, split in card.splits.items():
        default = " (default)" if name == card.default_split else ""
        lists = split.lists or {}
        sizes = ", ".join(f"{part} {' + '.join(lists.get(part, ())) or split.sizes.get(part, 0)}" for part in PARTS)
        lines.append(f"split {name}{default}: {sizes}; {split.method}, seed {split.seed}")
    lines.append(f"state: {_state(card, root)}")
    folder = prepare(card, True, root) if sample else cache_folder(card, False, root)
    if (folder / INDEX).exists():
        return [*lines, *_content_lines(Dataset.open(card, folder, sample, verify=True))]
    targets = [f"target {name}: {FIELDS[name].description}; in {t.report}" for name, t in card.targets.items()]
    return [*lines, *targets]


def _card(name: str, trust: Trust) -> Card:
    path = card_path(name)
    return load_card(name) if path is None else read_card(path, trust=trust)


def _shipped_where(card: Card) -> str:
    return "shipped with geoeq" if is_shared(Path(card.folder)) else "beside the card"


def _state(card: Card, root: str | Path | None) -> str:
    if (cache_folder(card, False, root) / INDEX).exists():
        return "prepared"
    available = all(source.shipped for source in card.sources)
    return _shipped_where(card) if available else f"not fetched; sample: {'yes' if card.sample else 'no'}"


def _content_lines(dataset: Dataset) -> list[str]:
    from ase.data import chemical_symbols

    sizes = np.diff(dataset.ptr)
    lines = [
        f"structures: {len(dataset)}, with {sizes.min()} to {sizes.max()} atoms (mean {sizes.mean():.1f}), "
        f"{len(dataset.positions)} atoms in total"
    ]
    if dataset.numbers is not None:
        block_counts = [np.bincount(block, minlength=len(chemical_symbols)) for block in _blocks(dataset.numbers)]
        counts = np.sum(block_counts, axis=0)
        lines.append("elements: " + ", ".join(f"{chemical_symbols[z]} {counts[z]}" for z in np.flatnonzero(counts)))
    lines.append(f"periodicity: {_periodicity(dataset)}")
    for name, values in dataset.targets.items():
        target = dataset.card.targets[name]
        unit = "dimensionless" if target.report == "1" else target.report
        mean, deviation, low, high = (number * target.to_report(name) for number in _statistics(values))
        lines.append(
            f"target {name} ({unit}): mean {mean:.6g}, standard deviation {deviation:.6g}, "
            f"minimum {low:.6g}, maximum {high:.6g}"
        )
    return lines + [f"note: {note}" for note in dataset.notes]


def _periodicity(dataset: Dataset) -> str:
    """Describe in which directions the structures repeat."""
    if dataset.pbc is None or not dataset.pbc.any():
        return "none; no structure has a cell that repeats"
    kinds, counts = np.unique(np.asarray(dataset.pbc, dtype=bool), axis=0, return_counts=True)
    words = [
        f"{' '.join(axis for axis, repeats in zip('abc', kind) if repeats) or 'none'} in {count}"
        for kind, count in zip(kinds[::-1], counts[::-1])
    ]
    return f"directions {' and '.join(words)} of {len(dataset)} structures"


def _statistics(values: Array) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, minimum and maximum."""
    mean = sum(float(block.sum(dtype=np.float64)) for block in _blocks(values)) / values.size
    squares = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in _blocks(values))
    low = min(float(block.min()) for block in _blocks(values))
    high = max(float(block.max()) for block in _blocks(values))
    return mean, (squares / values.size) ** 0.5, low, high


def _blocks(values: Array) -> Iterator[Array]:
    return (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
