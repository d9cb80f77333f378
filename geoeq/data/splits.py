"""Splits into train, valid and test: computed from seed and sizes, stored as indices, and verified by a checksum.

Methods:
    legacy_permutation: ``numpy.random.RandomState(seed).permutation``, cut in the order train, valid, test. These are
        the numbers of ``numpy.random.seed(seed)`` followed by ``numpy.random.permutation``.
    permutation: the same with ``numpy.random.default_rng(seed)``.
    consecutive: the records in their original order.
    parts: the parts in which a data set is published.
    lists: the files, or the published lists of indices, that the card names for each part. A validation set without a
        list is drawn at random from the training set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoeq.data.card import Split
from geoeq.data.store import INDEX, open_store, write_store
from geoeq.errors import DataError, unknown_name

__all__ = [
    "METHODS",
    "PARTS",
    "check_indices",
    "indices_of_lists",
    "indices_sha256",
    "make_split",
    "scale_sizes",
    "split_of_lists",
    "stored_split",
]

Indices = NDArray[np.int64]

#: The parts of a split, in the order in which a permutation is cut.
PARTS = ("train", "valid", "test")

#: Ratio of the sizes of a sample whose split is by lists, without sizes.
_RATIO = {"train": 8, "valid": 1, "test": 1}


METHODS: dict[str, Callable[[int, int | None], Indices]] = {
    "legacy_permutation": lambda count, seed: np.random.RandomState(seed).permutation(count).astype(np.int64),
    "permutation": lambda count, seed: np.random.default_rng(seed).permutation(count),
    "consecutive": lambda count, seed: np.arange(count, dtype=np.int64),
}


def make_split(split: Split, count: int, where: str, parts: Mapping[str, int] | None = None) -> dict[str, Indices]:
    """Return the indices of train, valid and test among ``count`` records.

    Args:
        split: method, seed and sizes.
        count: number of records of the data set.
        where: data set and split, for messages.
        parts: number of records of each part of the data set, in order.

    Raises:
        DataError: the method is unknown, a random one has no seed, or the sizes exceed the number of records.
    """
    if split.method == "parts":
        return _of_parts(split, parts or {}, where)
    if split.method not in METHODS:
        raise DataError(f"{where}: {unknown_name('split method', split.method, {*METHODS, 'parts'})}")
    if split.seed is None and split.method != "consecutive":
        raise DataError(f"{where}: the method '{split.method}' needs a seed.")
    sizes = [split.sizes[part] for part in PARTS]
    if min(sizes) < 0 or sum(sizes) > count:
        raise DataError(f"{where}: the sizes {split.sizes} do not fit into the {count} records of the data set.")
    order = METHODS[split.method](count, split.seed)
    ends = np.cumsum(sizes)
    return {part: order[end - size : end] for part, size, end in zip(PARTS, sizes, ends)}


def _of_parts(split: Split, parts: Mapping[str, int], where: str) -> dict[str, Indices]:
    ends = dict(zip(parts, np.cumsum(list(parts.values()), dtype=np.int64).tolist()))
    indices = {}
    for part, name in (split.parts or {}).items():
        if name not in parts:
            raise DataError(f"{where}: parts: {unknown_name('part of the data set', name, parts)}")
        if parts[name] != split.sizes[part]:
            raise DataError(
                f"{where}: the part '{name}' has {parts[name]} records instead of {split.sizes[part]}. A file is "
                "missing, or has another version than in the card."
            )
        indices[part] = np.arange(ends[name] - parts[name], ends[name], dtype=np.int64)
    return indices


def indices_of_lists(
    counts: Mapping[str, int], lists: Mapping[str, Sequence[int]], records: int, where: str
) -> dict[str, Indices]:
    """Return the indices of each file or part, which follow each other, and of each published list.

    Args:
        counts: number of records of each file or part, in order.
        lists: name of a published list -> indices.
        records: number of records of the data set.
        where: data set, for messages.

    Raises:
        DataError: an index of a list is outside the data set.
    """
    ends = np.cumsum(list(counts.values()), dtype=np.int64)
    indices = {name: np.arange(end - counts[name], end, dtype=np.int64) for name, end in zip(counts, ends)}
    for name, values in lists.items():
        indices[name] = np.array(values, dtype=np.int64)
        if np.any((indices[name] < 0) | (indices[name] >= records)):
            raise DataError(f"{where}: the list '{name}' has indices outside the {records} records.")
    return indices


def split_of_lists(split: Split, available: Mapping[str, Indices], where: str) -> dict[str, Indices]:
    """Return the indices of train, valid and test by the method "lists".

    Args:
        split: lists of each part, and size and seed of a validation set drawn from the training set.
        available: name of a file or list -> indices of its records.
        where: data set and split, for messages.

    Raises:
        DataError: a list is missing, or the training set is too small for the validation set.
    """
    lists = split.lists or {}
    missing = [name for names in lists.values() for name in names if name not in available]
    if missing:
        raise DataError(f"{where}: {unknown_name('file or list', missing[0], available)}")
    empty = np.zeros(0, dtype=np.int64)
    indices = {part: np.concatenate([empty, *[available[name] for name in lists.get(part, ())]]) for part in PARTS}
    size, train = split.sizes.get("valid", 0), indices["train"]
    if "valid" not in lists and size:
        if split.seed is None or size >= len(train):
            raise DataError(
                f"{where}: a validation set of {size} of the {len(train)} training records needs a seed, and must "
                "leave records for training."
            )
        order = np.random.default_rng(split.seed).permutation(len(train))
        indices |= {"valid": train[np.sort(order[:size])], "train": train[np.sort(order[size:])]}
    return indices


def scale_sizes(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """Scale the sizes of a split to ``count`` records; no part is empty if there are three or more records."""
    least = 1 if count >= 3 else 0
    valid, test = (max(round(count * sizes.get(part, 0) / sum(sizes.values())), least) for part in ("valid", "test"))
    lacking = max(least - (count - valid - test), 0)  # if the test set is nearly everything
    test -= lacking
    return {"train": count - valid - test, "valid": valid, "test": test}


def indices_sha256(indices: Mapping[str, Indices]) -> str:
    """Return the checksum of a split: of the sizes and all indices as little-endian 64 bit integers."""
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(np.int64(len(indices[part])).astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(indices[part], dtype="<i8").tobytes())
    return digest.hexdigest()


def check_indices(indices: Mapping[str, Indices], sha256: str | None, where: str) -> None:
    """Compare the checksum of a split with that of its card, if the card has one.

    Raises:
        DataError: they differ, so that results would not be comparable.
    """
    actual = indices_sha256(indices)
    if sha256 is not None and actual != sha256:
        raise DataError(
            f"{where}: this is not the split of the card: its indices have the sha256 {actual}, not {sha256}. The "
            "card, the number of records or the stored indices were changed; results would not be comparable."
        )


def stored_split(
    split: Split,
    count: int,
    sample: bool,
    folder: Path | None,
    where: str,
    parts: Mapping[str, int] | None = None,
    lists: Callable[[], Mapping[str, Indices]] | None = None,
) -> dict[str, Indices]:
    """Return the split stored in ``folder``, or compute it and store it there.

    Args:
        split: split of the card.
        count: number of records.
        sample: whether to scale the sizes to ``count``.
        folder: folder of the stored split; None to store nothing.
        where: data set and split, for messages.
        parts: number of records of each part of the data set, in order.
        lists: function that returns the indices of each file or list, for the method "lists".

    Raises:
        DataError: the stored split differs from the one of the card.
    """
    if sample:
        method = {"parts": "consecutive", "lists": "permutation"}.get(split.method, split.method)
        sizes = scale_sizes(split.sizes if sum(split.sizes.values()) else _RATIO, count)
        split = replace(split, sizes=sizes, sha256=None, method=method, lists=None)
    details: dict[str, object] = {"method": split.method, "seed": split.seed, "sizes": split.sizes, "records": count}
    if split.lists is not None:
        details["lists"] = {part: list(names) for part, names in split.lists.items()}
    if folder is not None and (folder / INDEX).exists():
        stored, stored_details = open_store(folder)
        if stored_details != details:
            raise DataError(
                f"{where}: it was stored in {folder} as {stored_details}, but the card now says {details}. Results "
                "would not be comparable. Undo the change, or delete that folder to use the new split."
            )
        indices = {part: np.asarray(stored[part]) for part in PARTS}
    else:
        if split.method == "lists" and lists is not None:
            indices = split_of_lists(split, lists(), where)
        else:
            indices = make_split(split, count, where, parts)
        if folder is not None:
            write_store(folder, indices, details)
    check_indices(indices, split.sha256, where)
    return indices
