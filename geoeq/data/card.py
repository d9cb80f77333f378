"""Find, read and validate the cards of data sets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from geoeq.data.card_schema import DIMENSIONLESS, Card, Published, Sample, Source, Split, Target, Variant
from geoeq.documents import read_yaml
from geoeq.errors import DataError, FieldError, check_name, unknown_name
from geoeq.fields import FIELDS
from geoeq.resources import is_shared, share
from geoeq.trust import Trust, check_trusted
from geoeq.typed import parse

__all__ = [
    "DIMENSIONLESS",
    "Card",
    "Published",
    "Sample",
    "Source",
    "Split",
    "Target",
    "Variant",
    "card_path",
    "choose_variant",
    "is_name",
    "load_card",
    "names",
    "read_card",
]


def names() -> list[str]:
    """Return the names of the data sets: the folders of ``datasets/`` that contain a card."""
    return sorted(path.parent.name for path in share("datasets").glob("*/card.yaml"))


def load_card(name: str) -> Card:
    """Return the card of the data set ``name``, or of one of its variants, as in ``md22/dha``.

    Raises:
        DataError: the data set or variant does not exist, or its card is invalid.
    """
    base, _, variant = name.partition("/")
    if base not in names():
        raise DataError(unknown_name("data set", name, names()))
    card = read_card(share("datasets") / base / "card.yaml")
    return choose_variant(card, variant) if variant or card.variants else card


def choose_variant(card: Card, name: str = "") -> Card:
    """Return the card of one variant; of the default one if ``name`` is empty.

    Raises:
        DataError: the variant does not exist.
    """
    name = name or card.default_variant
    check_name(f"variant of {card.name}", name, card.variants, DataError)
    variant = card.variants[name]
    return replace(
        card,
        title=f"{card.title}: {variant.title}",
        options={**card.options, **variant.options},
        sources=variant.sources or card.sources,
        splits={**card.splits, **variant.splits},
        sample=card.sample if name == card.default_variant else None,
        variant=name,
    )


def is_name(text: str) -> bool:
    """Return whether ``text`` is the name of a data set or variant, and not the path of a file."""
    base, slash, _ = text.partition("/")
    return base in names() and not (slash and Path(text).exists())


def card_path(name_or_path: str | Path) -> Path | None:
    """Return the card that a path refers to: a ``.yaml`` file, or the card in a folder; None if there is none."""
    path = Path(name_or_path)
    if path.suffix == ".yaml":
        return path
    card = path / "card.yaml"
    return card if not is_name(str(name_or_path)) and card.is_file() else None


def read_card(path: str | Path, *, trust: Trust = False) -> Card:
    """Read and validate the card in the file ``path``; its reader is not imported.

    Args:
        path: path of the card.
        trust: modules outside geoeq that the card may name as its reader, as for ``load``.

    Raises:
        DataError: the file is not YAML, a key is unknown or missing, a value has the wrong type or refers to something
            that does not exist, or the reader is not trusted; the message names file and key.
    """
    path = Path(path)
    where = str(path)
    if not path.exists():
        raise DataError(f"There is no card at {path}.")
    card = replace(parse(Card, read_yaml(path, where=where), where), folder=str(path.parent))
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", card.name):
        raise DataError(f"{where}: the key 'name' may contain a-z, 0-9, - and _, but it is {card.name!r}.")
    check_trusted(card.reader, trust, DataError, f"{where}: the reader '{card.reader}'")
    holders: list[Card | Variant] = [card, *card.variants.values()]
    splits = {name: split for holder in holders for name, split in holder.splits.items()}
    _check_targets(card, where)
    _check_references(card, splits, where)
    for name, split in splits.items():
        _check_split(name, split, where)
    _check_sources([source for holder in holders for source in holder.sources], path.parent, where)
    _check_within(path.parent, "sample.files", card.sample.files if card.sample else (), where)
    return card


def _check_targets(card: Card, where: str) -> None:
    for name, target in card.targets.items():
        if name not in FIELDS:
            raise DataError(f"{where}: targets: {unknown_name('field', name, FIELDS)}")
        try:
            target.to_internal(name), target.to_report(name)
        except FieldError as error:
            raise DataError(
                f"{where}: the key 'targets.{name}' has a unit that does not fit the field: {error}"
            ) from error


def _check_references(card: Card, splits: dict[str, Split], where: str) -> None:
    """Check the keys that name a split, variant or target."""
    for key, kind, name, known in [
        ("default_split", "split", card.default_split, list(splits)),
        *([("default_variant", "variant", card.default_variant, list(card.variants))] if card.variants else []),
        ("default_target", "target", card.default_target, list(card.targets)),
        *[
            (f"published[{i}].target", "target", entry.target, list(card.targets))
            for i, entry in enumerate(card.published)
        ],
    ]:
        if name not in known:
            raise DataError(f"{where}: {key}: {unknown_name(kind, name, known)}")


def _check_split(name: str, split: Split, where: str) -> None:
    if (split.method == "parts") != (split.parts is not None and set(split.parts) == {"train", "valid", "test"}):
        raise DataError(
            f"{where}: the key 'splits.{name}.parts' must have train, valid and test for the method 'parts', and must "
            "be absent for other methods."
        )
    parts = {"train", "valid", "test"}
    if not (parts >= {*split.sizes} if split.method == "lists" else parts == {*split.sizes}):
        raise DataError(f"{where}: the key 'splits.{name}.sizes' must have train, valid and test, not {split.sizes}.")
    if (split.method == "lists") != (split.lists is not None) or not {*(split.lists or {})} <= parts:
        raise DataError(
            f"{where}: the key 'splits.{name}.lists' must name the files or lists of train, valid and test for the "
            "method 'lists', and must be absent for other methods."
        )


def _check_sources(sources: list[Source], folder: Path, where: str) -> None:
    for i, source in enumerate(sources):
        if source.url is None and not source.shipped:
            raise DataError(f"{where}: the key 'sources[{i}]' needs a url, or 'shipped: true'.")
        if Path(source.file).name != source.file and not source.shipped:
            raise DataError(f"{where}: the key 'sources[{i}].file' must be a plain file name, not {source.file!r}.")
        _check_within(folder, f"sources[{i}].file", [source.file], where)


def _check_within(folder: Path, key: str, files: Iterable[str], where: str) -> None:
    """Refuse files outside the folder of the card; geoeq's own cards share files."""
    root = Path(os.path.abspath(folder.parent if is_shared(folder) else folder))
    for file in files:
        if root not in Path(os.path.abspath(folder / file)).parents:
            raise DataError(f"{where}: the key '{key}' must name a file in the folder of the card, not {file!r}.")
