"""Published files, fetched with resume and checked, or named with the place where to put them by hand."""

from __future__ import annotations

from pathlib import Path

from geoeq.data.card import Card, Source

__all__ = ["fetch_sources", "source_path"]


def source_path(card: Card, source: Source, root: Path) -> Path:
    """Where the file of ``source`` is, or belongs."""
    return Path(card.folder) / source.file if source.shipped else root / card.name / "raw" / source.file


def fetch_sources(card: Card, root: Path) -> dict[str, Path]:
    """The files of the card, name -> path; those that are not there are fetched."""
    return {source.file: source_path(card, source, root) for source in card.sources}
