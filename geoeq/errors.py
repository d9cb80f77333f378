"""The exceptions of geoeq; every message says where the problem is, what is wrong and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

__all__ = [
    "BackendError",
    "CellError",
    "CheckpointError",
    "CoincidentAtomsError",
    "DataError",
    "EmptyGraphError",
    "ExtentError",
    "FieldError",
    "GeoeqError",
    "InputError",
    "MissingExtraError",
    "NonFiniteError",
    "RecipeError",
    "SimulationError",
    "TensorError",
    "UnknownElementError",
    "check_name",
    "suggestion",
    "unknown_name",
]


class GeoeqError(Exception):
    """Base class of all errors that geoeq raises on purpose, with messages written for users."""


class InputError(GeoeqError, ValueError):
    """Invalid structure, tensor or argument."""


class NonFiniteError(InputError):
    """A position, cell or feature is NaN or infinite."""


class CoincidentAtomsError(InputError):
    """Two atoms of one graph coincide."""


class UnknownElementError(InputError):
    """An atomic number is unknown to the model or the data set."""


class EmptyGraphError(InputError):
    """A graph has no atoms."""


class CellError(InputError):
    """A cell has no volume or lacks a vector, or a structure is periodic where only open ones make sense."""


class ExtentError(InputError):
    """A graph is absurdly large for its cutoff."""


class TensorError(InputError, TypeError):
    """A tensor has the wrong dtype, shape or device, or is missing."""


class FieldError(GeoeqError, ValueError):
    """A field is unknown to ``geoeq.fields``, or is used at the wrong level or in the wrong unit."""


class DataError(GeoeqError):
    """A data file is missing, truncated, altered or inconsistent with its card."""


class RecipeError(GeoeqError, ValueError):
    """A recipe has an unknown key, a wrong type or an invalid value."""


class CheckpointError(GeoeqError):
    """A checkpoint is incomplete, belongs to another model, or has a version that cannot be read."""


class SimulationError(GeoeqError, RuntimeError):
    """A simulation cannot continue: its results became meaningless, or memory ran out."""


class BackendError(GeoeqError, RuntimeError):
    """The requested kernel backend is unknown or not available here."""


class MissingExtraError(GeoeqError, ImportError):
    """A command needs an optional package that is not installed."""


def check_name(kind: str, name: str, known: Collection[str], error: type[Exception] = InputError) -> None:
    """Check that a name is among the known ones.

    Raises:
        InputError: it is not; or ``error``, if another class is given.
    """
    if name not in known:
        raise error(unknown_name(kind, name, known))


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the closest known name and all known names."""
    return f"No {kind} is called '{name}'.{suggestion(name, known)}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'? Known: x, y." for a name that is not in ``known``."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."
