"""What can go wrong, as one small hierarchy: what a user did, where, and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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
    "suggestion",
    "unknown_name",
]


class GeoeqError(Exception):
    """Anything that geoeq raises on purpose; its message is written for the user."""


class InputError(GeoeqError, ValueError):
    """A structure, tensor or argument that cannot be what was meant."""


class NonFiniteError(InputError):
    """A position, cell or feature is NaN or infinite."""


class CoincidentAtomsError(InputError):
    """Two atoms of one graph are at the same place."""


class UnknownElementError(InputError):
    """An atomic number is outside what the model or the data set knows."""


class EmptyGraphError(InputError):
    """A graph has no atoms."""


class CellError(InputError):
    """A periodic direction has no cell vector, or the cell has no volume."""


class ExtentError(InputError):
    """A graph is absurdly large for its cutoff."""


class TensorError(InputError, TypeError):
    """A tensor has the wrong dtype, shape or device, or is missing."""


class FieldError(GeoeqError, ValueError):
    """A quantity that ``geoeq.fields`` does not know, or that is used at the wrong level or unit."""


class DataError(GeoeqError):
    """A data file is missing, truncated, altered or not what its card says."""


class RecipeError(GeoeqError, ValueError):
    """A recipe has an unknown key, a wrong type or a value that cannot work."""


class CheckpointError(GeoeqError):
    """A checkpoint is incomplete, of another model, or from a version that cannot be read."""


class SimulationError(GeoeqError, RuntimeError):
    """A simulation cannot go on: what it computes is no longer what was meant, or there is no memory for it."""


class BackendError(GeoeqError, RuntimeError):
    """A kernel backend was asked for that is unknown or not available here."""


class MissingExtraError(GeoeqError, ImportError):
    """A command needs an optional package that is not installed."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for an unknown name: its kind, the closest known name, and all known names."""
    return f"No {kind} is called '{name}'.{suggestion(name, known)}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'? Known: x, y." for a name that is none of ``known``."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."
