"""Cards of published potentials, and where a potential that was fetched by its name lies in the cache."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geoeq.documents import read_yaml
from geoeq.errors import CheckpointError, DataError, unknown_name
from geoeq.resources import cache_root, share
from geoeq.typed import parse

__all__ = [
    "Package",
    "PotentialCard",
    "fetched_potential",
    "is_potential",
    "load_potential_card",
    "potential_cards",
    "potential_folder",
    "similar_potential",
]


@dataclass(frozen=True)
class Package:
    """A distribution of the package index whose wheel contains the file.

    Attributes:
        name: name of the distribution.
        version: its version.
        wheel: file name of the wheel.
        sha256: sha256 of the wheel.
    """

    name: str
    version: str
    wheel: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class PotentialCard:
    """Description of a published potential; the content of ``potentials/NAME/card.yaml``.

    Attributes:
        name: name of the potential and of its folder.
        title: title in one line.
        format: kind of the file.
        file: path of the file in the wheel; the name of a file that is downloaded by hand.
        licence: licence of the weights.
        citation: reference to cite.
        elements: symbols of elements and ranges of them, such as "H-Bi"; empty if nobody has read the file with geoeq.
        training_data: data that it was trained on.
        theory: level of theory of the data.
        good_for: uses that it suits.
        not_for: uses that it does not suit.
        url: address of the project, or of a file that is downloaded by hand.
        sha256: sha256 of the file; required for a file in a package.
        package: the package that contains the file; None if the file must be downloaded and converted by hand.
        modalities: name -> level of theory, for a network of several ones; ``NAME/MODALITY`` is then a potential.
        unverified: whether nobody has read this file with geoeq yet.
    """

    name: str
    title: str
    format: Literal["sevennet"]
    file: str
    licence: str
    citation: str
    elements: tuple[str, ...]
    training_data: str
    theory: str
    good_for: tuple[str, ...]
    not_for: tuple[str, ...]
    url: str
    sha256: str | None = None
    package: Package | None = None
    modalities: dict[str, str] = field(default_factory=dict)
    unverified: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the potentials in the file: that of the card, or one for each modality."""
        return [f"{self.name}/{modality}" for modality in self.modalities] or [self.name]

    @property
    def by_hand(self) -> str:
        """How to get the file without pip, in a sentence or two."""
        if self.package is not None:
            return (
                f"On a machine that reaches a package index, run: pip download --no-deps {self.package.requirement}. "
                f"Then copy the file here and run: geoeq potentials fetch {self.name} --file {self.package.wheel}"
            )
        option = " --modality NAME" if self.modalities else ""
        doubt = " Nobody has read this file with geoeq yet; if its network is not supported, an error says so."
        return (
            f"{self.name} is not in a package index. Download {self.url}, convert it with: geoeq potentials convert "
            f"{self.file}{option} -o FOLDER, and use that folder.{doubt if self.unverified else ''}"
        )


def potential_cards() -> list[PotentialCard]:
    """Return the cards of all published potentials, by name.

    Raises:
        DataError: a card is invalid.
    """
    return [_read_card(path) for path in sorted(share("potentials").glob("*/card.yaml"))]


def load_potential_card(name: str) -> PotentialCard:
    """Return the card of a potential, which may be named with a modality, as in ``7net-mf-0/PBE``.

    Raises:
        DataError: there is no such potential or modality, or its card is invalid.
    """
    cards = {card.name: card for card in potential_cards()}
    base, slash, modality = name.partition("/")
    if base not in cards:
        raise DataError(unknown_name("published potential", name, cards))
    if slash and modality not in cards[base].modalities:
        raise DataError(unknown_name("published potential", name, cards[base].names))
    return cards[base]


def is_potential(path: str | Path) -> bool:
    """Return whether a text is the name of a published potential or of its card, and not an existing path."""
    known = {name for card in potential_cards() for name in (card.name, *card.names)}
    return str(path) in known and not Path(path).exists()


def potential_folder(name: str, root: str | Path | None = None) -> Path:
    """Return the folder in the cache for a potential or card, whether or not it was fetched.

    Args:
        name: name of a potential, with its modality if it has several, or of a card.
        root: folder of all caches; None for the default of ``cache_root``.
    """
    return cache_root(root) / "potentials" / name


def fetched_potential(name: str) -> Path:
    """Return the checkpoint folder of a published potential.

    Raises:
        CheckpointError: it was not fetched, the name lacks a modality, or the file must be converted by hand; the
            message says what to do.
        DataError: there is no such potential.
    """
    card = load_potential_card(name)
    if name not in card.names:
        raise CheckpointError(f"{name} has several levels of theory. Name one of them: {', '.join(card.names)}.")
    folder = potential_folder(name)
    if card.package is None:
        raise CheckpointError(card.by_hand)
    if not folder.is_dir():
        raise CheckpointError(
            f"The published potential {name} was not fetched yet. Fetch it with: geoeq potentials fetch {name}"
        )
    return folder


def similar_potential(text: str) -> str | None:
    """Return the name of the published potential that resembles a text most; None if none does."""
    names = {name.lower(): name for card in potential_cards() for name in card.names}
    close = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def _read_card(path: Path) -> PotentialCard:
    card = parse(PotentialCard, read_yaml(path, where=str(path)), str(path))
    if card.name != path.parent.name:
        raise DataError(f"{path}: the key 'name' must be that of the folder, '{path.parent.name}', not '{card.name}'.")
    if card.package is not None and card.sha256 is None:
        raise DataError(f"{path}: a file in a package needs the key 'sha256'.")
    return card
