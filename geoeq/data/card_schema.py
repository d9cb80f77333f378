"""The schema of a card: the dataclasses into which ``datasets/NAME/card.yaml`` is parsed."""

from __future__ import annotations

from dataclasses import dataclass, field

from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["DIMENSIONLESS", "Card", "Published", "Sample", "Source", "Split", "Target", "Variant"]

#: The unit of a dimensionless quantity, such as a position in a simulation without a length scale.
DIMENSIONLESS = "1"


@dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
        file: name of the file in the folder of raw files.
        url: address of the file.
        sha256: sha256 of the file, if it is known.
        md5: md5 of the file, if that is what is published.
        bytes: size of the file, if it is known.
        licence: licence of the file, if it differs from that of the data set.
        unverified: whether nobody has fetched the file from this address with geoeq yet.
        shipped: whether the file is shipped with geoeq, beside the card.
        format: name of a format. All files of one format are needed, and one format is enough; a file without a format
            is always needed.
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
    """A quantity to predict; its key in the card is a field of ``geoeq.fields``.

    Attributes:
        column: name of the column of the reader.
        unit: unit of the file; "1" if the quantity is dimensionless.
        report: unit in which tables print the quantity.
    """

    column: str
    unit: str
    report: str

    def to_internal(self, name: str) -> float:
        """Return the factor from the unit of the file to the unit of the field ``name``."""
        return 1.0 if self.unit == DIMENSIONLESS else conversion(self.unit, FIELDS[name].unit)

    def to_report(self, name: str) -> float:
        """Return the factor from the unit of the field ``name`` to the unit in which it is reported."""
        return 1.0 if self.report == DIMENSIONLESS else conversion(FIELDS[name].unit, self.report)


@dataclass(frozen=True)
class Split:
    """A division of a data set; ``geoeq.data.splits`` documents the methods.

    Attributes:
        method: "legacy_permutation", "permutation", "consecutive", "parts" or "lists".
        sizes: numbers of structures in train, valid and test. The method "lists" uses only the size of a validation set
            without a list, which is then drawn at random from the training set; the others may be missing.
        seed: random seed.
        sha256: checksum of the indices, if they do not depend on the data.
        source: paper or program from which the split is taken.
        parts: for the method "parts": the part of the data set that is train, valid and test; two may be the same.
        lists: for the method "lists": the files of the data set, or the published lists of indices, that are train,
            valid and test.
    """

    method: str
    sizes: dict[str, int] = field(default_factory=dict)
    seed: int | None = None
    sha256: str | None = None
    source: str | None = None
    parts: dict[str, str] | None = None
    lists: dict[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Variant:
    """One of several data sets with one card, such as a molecule of MD22, named as in ``md22/dha``.

    Attributes:
        title: title in one line.
        options: options of the reader, in addition to those of the card.
        sources: published files, instead of those of the card.
        splits: splits, in addition to those of the card.
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
    """The few records that are shipped with geoeq: files beside the card, or other options of the reader."""

    files: tuple[str, ...] = ()
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """Description of a data set: origin, content, units and splits; the content of ``datasets/NAME/card.yaml``.

    Attributes:
        name: name of the data set and of its folder.
        title: title in one line.
        reader: class path of the reader, which may be the user's own.
        licence: licence of the data.
        citation: reference to cite.
        targets: field name -> column and units.
        splits: name -> split.
        default_split: split that is used if none is specified.
        default_target: target that is used if none is specified.
        sources: published files; empty if the reader generates the data.
        sample: the records that are shipped with geoeq.
        options: arguments of the reader.
        published: errors that papers report.
        variants: name -> differences from the card.
        default_variant: variant that the bare name of the card means, and from which the sample is taken.
        made: for data made by geoeq: method, program, sampling and seed.
        variant: the chosen variant; set by ``load_card``.
        folder: folder of the card; set by ``read_card``.
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
