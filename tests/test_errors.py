"""The hierarchy of errors: what a caller may catch, and the sentence for a misspelt name."""

from __future__ import annotations

import pytest

from geoeq import errors

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
