"""The card of a data set: where it comes from, what it holds, in which units, and how it is split."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from geoeq.errors import DataError, FieldError, unknown_name
from geoeq.fields import FIELDS
from geoeq.resources import share
from geoeq.typed import parse
from geoeq.units import conversion

__all__ = [
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

#: The unit of a quantity that has none, such as a place in a simulation without scale.
DIMENSIONLESS = "1"


@dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
        file: its name in the folder of raw files.
        url: where it is published.
        sha256: its checksum, where it is known.
        md5: that checksum, where it is the one that is published.
        bytes: its size, where it is known.
        licence: where it differs from that of the data set.
        unverified: nobody has yet fetched it from this address with this program.
        shipped: it comes with geoeq, beside the card.
        format: files of one format belong together, and one format is enough; without it the file is always needed.
    """

    file: str
    url: str | None = None
    sha256: str | None = None
    md5: str | None = None
    bytes: int | None = None
    licence: str | None = None
    unverified: bool = False
    shipped: bool = False
    format: str | None = None


@dataclass(frozen=True)
class Target:
    """A quantity to predict, under the name it has in ``geoeq.fields``.

    Attributes:
        column: what the reader calls it.
        unit: the unit of the file; "1" if it has none.
        report: the unit in which tables print it.
    """

    column: str
    unit: str
    report: str

    def to_internal(self, name: str) -> float:
        """The factor from the unit of the file to the unit of the field ``name``."""
        return 1.0 if self.unit == DIMENSIONLESS else conversion(self.unit, FIELDS[name].unit)

    def to_report(self, name: str) -> float:
        """The factor from the unit of the field ``name`` to the unit in which it is reported."""
        return 1.0 if self.report == DIMENSIONLESS else conversion(FIELDS[name].unit, self.report)


@dataclass(frozen=True)
class Split:
    """How a data set is divided; ``geoeq.data.splits`` lists the methods.

    Attributes:
        method: "legacy_permutation", "permutation", "consecutive", "parts" or "lists".
        sizes: of train, valid and test. With "lists" that of a part is what there is; only that of a valid set without
            a list counts, which is then taken from the training set at random.
        seed: of the random generator.
        sha256: of the indices, where they can be known before the data are there.
        source: the paper or program whose split it is.
        parts: of the method "parts": the part of the data set that is train, valid and test; two may be the same.
        lists: of the method "lists": the files of the data set, or the published lists of places, that are train, valid
            and test.
    """

    method: str
    sizes: dict[str, int]
    seed: int | None = None
    sha256: str | None = None
    source: str | None = None
    parts: dict[str, str] | None = None
    lists: dict[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Variant:
    """One of several data sets with one card, such as a molecule of MD22; named as in ``md22/dha``.

    Attributes:
        title: one line.
        options: of the reader, beside those of the card.
        sources: in place of those of the card.
        splits: beside those of the card.
    """

    title: str
    options: dict[str, object] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    splits: dict[str, Split] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """Errors that papers report for one target, for the table at the end of a training."""

    target: str
    metric: str
    unit: str
    values: dict[str, float]
    split: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Sample:
    """The few records that come with geoeq: files beside the card, or other options of the reader."""

    files: tuple[str, ...] = ()
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """What ``datasets/NAME/card.yaml`` says.

    Attributes:
        name: also the name of its folder.
        title: one line.
        reader: class path of the reader, or of a user's own.
        licence: of the data.
        citation: as one would print it.
        targets: field name -> where it is and in which unit.
        splits: name -> how it is made.
        default_split: the one that is used if none is named.
        default_target: the one that is used if none is named.
        sources: the published files; none if the reader makes the data itself.
        sample: the records that come with geoeq.
        options: arguments of the reader.
        published: errors that papers report.
        variants: name -> what is different in it.
        default_variant: the one that is meant by the name of the card alone, and whose records the sample has.
        made: how geoeq made the data, where it did: method, program, sampling, seed.
        variant: the one that this is; set by ``load_card``.
        folder: where the card lies; set by ``read_card``.
    """

    name: str
    title: str
    reader: str
    licence: str
    citation: str
    targets: dict[str, Target]
    splits: dict[str, Split]
    default_split: str
    default_target: str
    sources: tuple[Source, ...] = ()
    sample: Sample | None = None
    options: dict[str, object] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    variants: dict[str, Variant] = field(default_factory=dict)
    default_variant: str = ""
    made: dict[str, object] = field(default_factory=dict)
    variant: str = ""
    folder: str = ""


def names() -> list[str]:
    """The names of the data sets: the folders of ``datasets/`` that hold a card."""
    return sorted(path.parent.name for path in share("datasets").glob("*/card.yaml"))


def load_card(name: str) -> Card:
    """The card of the data set ``name``, or of a variant of it, as in ``md22/dha``.

    Raises:
        DataError: there is no such data set or variant, or its card is wrong.
    """
    base, _, variant = name.partition("/")
    if base not in names():
        raise DataError(unknown_name("data set", name, names()))
    card = read_card(share("datasets") / base / "card.yaml")
    return choose_variant(card, variant) if variant or card.variants else card


def choose_variant(card: Card, name: str = "") -> Card:
    """The card of one variant; of the default one if ``name`` is empty.

    Raises:
        DataError: there is no such variant.
    """
    name = name or card.default_variant
    if name not in card.variants:
        raise DataError(unknown_name(f"variant of {card.name}", name, card.variants))
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
    """Whether it is the name of a data set or of a variant of one, and not the path of a file."""
    base, slash, _ = text.partition("/")
    return base in names() and not (slash and Path(text).exists())


def card_path(name_or_path: str | Path) -> Path | None:
    """The card that a path means: itself (``.yaml``), or that of a folder which holds one; None if it means none."""
    path = Path(name_or_path)
    if path.suffix == ".yaml":
        return path
    found = path / "card.yaml"
    return found if not is_name(str(name_or_path)) and found.is_file() else None


def read_card(path: Path) -> Card:
    """The card in the file ``path``.

    Raises:
        DataError: it is not YAML, a key is unknown or missing, a value has the wrong type, or names a thing that is
            not there; the message names file and key.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"There is no card at {path}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: it is not YAML: {error}") from error
    card = replace(parse(Card, content, where), folder=str(path.parent))
    _check(card, where)
    return card


def _check(card: Card, where: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", card.name):
        raise DataError(f"{where}: the key 'name' should be small letters, digits, - and _, not {card.name!r}.")
    for name, target in card.targets.items():
        if name not in FIELDS:
            raise DataError(f"{where}: targets: {unknown_name('field', name, FIELDS)}")
        try:
            target.to_internal(name), target.to_report(name)
        except FieldError as error:
            raise DataError(
                f"{where}: the key 'targets.{name}' has a unit that does not fit the field: {error}"
            ) from error
    holders: list[Card | Variant] = [card, *card.variants.values()]
    splits = {name: split for holder in holders for name, split in holder.splits.items()}
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
    for name, split in splits.items():
        if (split.method == "parts") != (split.parts is not None and set(split.parts) == {"train", "valid", "test"}):
            raise DataError(
                f"{where}: the key 'splits.{name}.parts' should have train, valid and test if the method is 'parts', "
                "and else not be there."
            )
        if set(split.sizes) != {"train", "valid", "test"}:
            raise DataError(
                f"{where}: the key 'splits.{name}.sizes' should have train, valid and test, not {split.sizes}."
            )
        if (split.method == "lists") != (split.lists is not None) or not {*(split.lists or {})} <= {*split.sizes}:
            raise DataError(
                f"{where}: the key 'splits.{name}.lists' should say which files or lists are train, valid and test if "
                "the method is 'lists', and else not be there."
            )
    sources = [source for holder in holders for source in holder.sources]
    for i, source in enumerate(sources):
        if source.url is None and not source.shipped:
            raise DataError(f"{where}: the key 'sources[{i}]' should have a url, or say 'shipped: true'.")
        if Path(source.file).name != source.file and not source.shipped:
            raise DataError(f"{where}: the key 'sources[{i}].file' should be a plain file name, not {source.file!r}.")
