"""The exceptions of geoeq; every message says where the problem is, what is wrong and what would be right."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral
from typing import Any

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
    "check_positive",
    "check_rates",
    "check_sizes",
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


def check_sizes(owner: object, *, least: int = 1, **sizes: int | Sequence[int] | None) -> None:
    """Check arguments of a constructor that are numbers of channels, layers, functions and the like.

    Args:
        owner: the object under construction, whose class the message names.
        least: the smallest valid number.
        sizes: numbers or lists of numbers, by the name of the argument; None, for an argument left out, is valid.

    Raises:
        InputError: a number is not whole, or less than ``least``.
    """
    for name, size in sizes.items():
        numbers: Sequence[Any] = size if isinstance(size, Sequence) else [size]
        for number in numbers:
            whole = isinstance(number, Integral)
            if number is not None and not (whole and number >= least):
                rule = f"{least} or more" if whole else f"a whole number, {least} or more"
                raise _argument_error(owner, name, size, rule)


def check_positive(owner: object, **numbers: float | None) -> None:
    """Check arguments of a constructor that are lengths, divisors and the like, as ``check_sizes`` does.

    Raises:
        InputError: a number is not positive, or not finite.
    """
    for name, number in numbers.items():
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise _argument_error(owner, name, number, "a positive, finite number")


def check_rates(owner: object, **rates: float) -> None:
    """Check arguments of a constructor that are probabilities of dropout, as ``check_sizes`` does.

    Raises:
        InputError: a probability is negative, or not below 1.
    """
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise _argument_error(owner, name, rate, "a probability from 0 to below 1")


def _argument_error(owner: object, name: str, value: object, rule: str) -> InputError:
    return InputError(f"{type(owner).__name__}: {name} is {value}; it must be {rule}.")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown name, with the closest known name and all known names."""
    return f"No {kind} is called '{name}'.{suggestion(name, known)}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'? Known: x, y." for a name that is not in ``known``."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.55)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."
