"""Create the reader that a card specifies."""

from __future__ import annotations

import inspect
from typing import cast

from geoeq.data.card import Card
from geoeq.data.records import Reader
from geoeq.errors import DataError, unknown_name
from geoeq.typed import Origin, import_object

__all__ = ["make_reader", "reader_options"]


def make_reader(card: Card, sample: bool = False) -> Reader:
    """Return the reader that the card names, with the options of the card.

    Raises:
        DataError: the class does not exist, is not a reader, or has no such option.
    """
    where = f"{card.name}/card.yaml"
    kind = import_object(card.reader, Origin(where), "reader")
    if not (inspect.isclass(kind) and hasattr(kind, "read") and isinstance(getattr(kind, "version", None), int)):
        raise DataError(f"{where}: the reader '{card.reader}' is not a class with 'version' and 'read'.")
    options, known = reader_options(card, sample), set(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise DataError(f"{where}: options: {unknown_name('option', option, known)}")
    try:
        return cast(Reader, kind(**options))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: options: {error}") from error


def reader_options(card: Card, sample: bool) -> dict[str, object]:
    """Return the options of the card, with those of its sample if ``sample`` is set."""
    return {**card.options, **(card.sample.options if sample and card.sample else {})}
