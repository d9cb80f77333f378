"""Typed settings: which values are read as which types, and the text of every mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from geoeq.errors import DataError, InputError, RecipeError
from geoeq.typed import Origin, differences, import_object, parse, parse_arguments


@dataclass(frozen=True)
class Inner:
    size: int
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 0:
            raise InputError(f"'size' must be 0 or more, not {self.size}.")


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    kind: Literal["32", "64"] = "32"
    one_or_more: str | list[str] = "a"
    weights: Mapping[str, float] = field(default_factory=dict)
    anything: object = None
    flag: bool = False


def test_every_type_is_read() -> None:
    values = {
        "name": "x",
        "inner": {"size": 3, "rate": "1e-3"},
        "several": [{"size": 1}, {"size": "2"}],
        "pair": [3, 4],
        "kind": 64,
        "one_or_more": ["b", "c"],
        "weights": {"a": 1},
        "anything": [1, {"b": None}],
        "flag": True,
    }
    outer = parse(Outer, values, "file.yaml")
    assert outer.inner == Inner(3, 1e-3)
    assert outer.several == (Inner(1), Inner(2))
    assert outer.pair == (3, 4.0)
    assert isinstance(outer.pair[1], float)
    assert (outer.kind, outer.one_or_more, outer.weights) == ("64", ["b", "c"], {"a": 1.0})
    assert outer.anything == [1, {"b": None}]
    assert parse(int | float, 3, "f") == 3
    assert isinstance(parse(float | int, 3, "f"), int)
    assert parse(Sequence[int] | None, None, "f") is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "f: the key 'name' is missing."),
        ({"name": 3}, "f: the key 'name' must be text, not 3."),
        ({"name": None}, "f: the key 'name' must be text, not null."),
        ({"name": "x", "nam": 1}, "f: the outer has no key 'nam'. Did you mean 'name'? Known: anything, flag,"),
        ({"name": "x", "inner": 3}, "f: the key 'inner' must be a mapping of keys to values, not 3."),
        ({"name": "x", "inner": {"size": 2.5}}, "f: the key 'inner.size' must be a whole number, not 2.5."),
        ({"name": "x", "inner": {"size": "two"}}, "f: the key 'inner.size' must be a whole number, not 'two'."),
        ({"name": "x", "inner": {"size": True}}, "f: the key 'inner.size' must be a whole number, not true."),
        ({"name": "x", "inner": {"size": -1}}, "f: inner: 'size' must be 0 or more, not -1."),
        ({"name": "x", "several": [{"size": 1, "rat": 2}]}, "f: several[0] has no key 'rat'. Did you mean 'rate'?"),
        ({"name": "x", "pair": [1]}, "f: the key 'pair' must be a list of 2 (a whole number, a number), not [1]."),
        ({"name": "x", "kind": 16}, "f: the key 'kind' cannot be 16. Known: 32, 64."),
        ({"name": "x", "one_or_more": 3}, "the key 'one_or_more' must be text or a list (each item text), not 3."),
        ({"name": "x", "weights": {"a": "b"}}, "f: the key 'weights.a' must be a number, not 'b'."),
        ({"name": "x", "weights": [1]}, "the key 'weights' must be a mapping with names as keys (each value a number)"),
        ({"name": "x", "flag": 1}, "f: the key 'flag' must be true or false, not 1."),
        ([], "f: the key 'file' must be a mapping of keys to values, not []."),
    ],
)
def test_mistakes_are_named(values: object, message: str) -> None:
    with pytest.raises(DataError) as error:
        parse(Outer, values, "f")
    assert message in str(error.value)


def test_each_key_has_its_source() -> None:
    origin = Origin("f", "setting", RecipeError, {"inner": "base", "inner.rate": "command line"})
    for values, message in (
        ({"size": 1, "rate": "x"}, "command line: the setting 'inner.rate' must be a number, not 'x'."),
        ({"size": "x"}, "base: the setting 'inner.size' must be a whole number, not 'x'."),
        ({"size": -1}, "base: inner: 'size' must be 0 or more, not -1."),
    ):
        with pytest.raises(RecipeError) as error:
            parse(Outer, {"name": "x", "inner": values}, origin)
        assert str(error.value) == message


class Model:
    def __init__(self, width: int, heads: Sequence[int] = (), inner: Any = None) -> None:
        """Take three arguments."""


def test_arguments_are_read_as_annotated() -> None:
    origin = Origin("f", "setting", RecipeError)
    described = {"class_path": "geoeq.models.EGNN"}
    assert parse_arguments(Model, {"width": "3", "heads": [1]}, origin, "a") == {"width": 3, "heads": [1]}
    assert parse_arguments(Model, {"width": 3, "inner": described}, origin, "a")["inner"] == described
    for arguments, message in (
        ({"widht": 3}, "f: a: Model has no argument 'widht'. Did you mean 'width'? Known: heads, inner, width."),
        ({"width": "x"}, "f: the setting 'a.width' must be a whole number, not 'x'."),
        ([3], "f: the setting 'a' must be a mapping of argument names to values, not [3]."),
    ):
        with pytest.raises(RecipeError) as error:
            parse_arguments(Model, arguments, origin, "a")
        assert str(error.value) == message


def test_objects_are_imported_by_their_path() -> None:
    assert import_object("geoeq.typed.Origin") is Origin
    assert import_object("geoeq.typed:parse") is parse
    for path, message in (
        ("Origin", "'class_path' must be a dotted path, as in 'geoeq.models.EGNN', not 'Origin'."),
        (3, "'class_path' must be a dotted path, as in 'geoeq.models.EGNN', not 3."),
        ("geoeq.typd.Origin", "There is no module 'geoeq.typd' for 'geoeq.typd.Origin'. Your own modules are imported"),
        ("geoeq.typed.Orign", "The module 'geoeq.typed' has no object 'Orign'. Did you mean 'Origin'? Known: "),
    ):
        with pytest.raises(DataError) as error:
            import_object(path)
        assert str(error.value).startswith(message)


def test_differences_are_in_words() -> None:
    old, new = {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}, {"a": 1, "b": {"c": 2, "d": 5}}
    assert differences(old, new, {"a", "b"}) == ["b.d is 3 there and 5 here"]
    assert differences(old, new, {"e"}) == ["e is 4 there and None here"]
