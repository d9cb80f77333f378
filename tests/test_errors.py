"""The hierarchy of errors: what a caller may catch, and the sentence for a misspelt name."""

from __future__ import annotations

import numpy as np
import pytest

from geoeq import errors
from geoeq.errors import InputError, check_positive, check_rates, check_sizes

CLASSES = [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_a_geoeq_error(error: type[Exception]) -> None:
    assert issubclass(error, errors.GeoeqError)
    assert error.__doc__


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.TensorError, TypeError),
        (errors.TensorError, ValueError),
        (errors.RecipeError, ValueError),
        (errors.BackendError, RuntimeError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_callers_may_catch_the_builtin(error: type[Exception], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match=r"^what and where$"):
        raise error("what and where")


def test_unknown_name_gives_the_closest_and_all() -> None:
    sentence = errors.unknown_name("setting", "lrr", ["weight_decay", "lr", "epochs"])
    assert sentence == "No setting is called 'lrr'. Did you mean 'lr'? Known: epochs, lr, weight_decay."


def test_unknown_name_invents_no_hint() -> None:
    assert errors.unknown_name("field", "xyz", ["energy"]) == "No field is called 'xyz'. Known: energy."
    assert errors.unknown_name("field", "xyz", []) == "No field is called 'xyz'. Known: none."


class Layer:
    """Something under construction."""


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (check_sizes, {"width": 0}, "Layer: width is 0; it must be 1 or more."),
        (check_sizes, {"width": 2.5}, "Layer: width is 2.5; it must be a whole number, 1 or more."),
        (check_sizes, {"hidden": [4, -1]}, "Layer: hidden is [4, -1]; it must be 1 or more."),
        (check_sizes, {"least": 2, "width": 1}, "Layer: width is 1; it must be 2 or more."),
        (check_positive, {"cutoff": float("nan")}, "Layer: cutoff is nan; it must be a positive, finite number."),
        (check_positive, {"cutoff": float("inf")}, "Layer: cutoff is inf; it must be a positive, finite number."),
        (check_rates, {"dropout": 1.0}, "Layer: dropout is 1.0; it must be a probability from 0 to below 1."),
        (check_rates, {"dropout": float("nan")}, "Layer: dropout is nan; it must be a probability from 0 to below 1."),
    ],
)
def test_arguments_out_of_range_are_named(check, arguments, message):
    with pytest.raises(InputError) as caught:
        check(Layer(), **arguments)
    assert str(caught.value) == message


def test_arguments_in_range_pass():
    check_sizes(Layer(), width=1, hidden=[], lmax=None, many=np.int64(3))
    check_sizes(Layer(), least=0, edge_width=0)
    check_positive(Layer(), cutoff=1e-3, clamp=None)
    check_rates(Layer(), dropout=0)
