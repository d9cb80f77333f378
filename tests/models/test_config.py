"""A model is made from JSON, and nothing else can be."""

from __future__ import annotations

import pytest

from geoeq.errors import CheckpointError, RecipeError
from geoeq.models import EGNN, GraphScalar, Head, Model, from_config


def config(**arguments):
    head = {"class_path": "geoeq.models.GraphScalar", "init_args": {"name": "gap"}}
    return {"class_path": "geoeq.models.EGNN", "init_args": {"heads": [head], "width": 8, "layers": 1, **arguments}}


def test_builds_the_object_and_those_inside_it():
    model = from_config(config(attention=True), Model)
    assert isinstance(model, EGNN)
    assert isinstance(model.heads[0], GraphScalar)
    assert model.config()["init_args"]["attention"] is True
    assert model.config()["init_args"]["layers"] == 1


def test_a_subclass_of_the_user_remembers_its_own_arguments():
    class Narrow(EGNN):
        def __init__(self, depth: int) -> None:
            super().__init__([GraphScalar("gap")], width=4, layers=depth)

    assert Narrow(2).config()["init_args"] == {"depth": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_path": "geoeq.models.EGN"}, "Did you mean 'EGNN'"),
        ({"class_path": "EGNN"}, "must be a dotted path"),
        ({"class_path": "geoeq.modells.EGNN"}, "no module 'geoeq.modells'"),
        ({"class_path": "subprocess.Popen", "init_args": {"args": ["false"]}}, "is not a Model"),
        ({"class_path": "geoeq.models.GraphScalar"}, "is not a Model"),
        ({"class_path": "geoeq.models.Model"}, "abstract"),
        ({"arguments": {}}, "written as class_path and init_args"),
        ({"init_args": "x"}, "EGNN: init_args must be a mapping of arguments, not 'x'"),
        ({"init_args": [1]}, r"EGNN: init_args must be a mapping of arguments, not \[1\]"),
    ],
)
def test_wrong_class_paths(change, message):
    with pytest.raises(RecipeError, match=message):
        from_config(config() | change, Model, trust=True)


@pytest.mark.parametrize("described", [3, "x", None, ["class_path"], {}])
def test_what_describes_no_object(described):
    with pytest.raises(RecipeError, match=r"A Model is written as class_path and init_args; found: \w+"):
        from_config(described, Model)


def test_a_class_outside_geoeq_needs_trust():
    class_path = "stranger.evil.Narrow"
    for described in (config() | {"class_path": class_path}, config(heads=[{"class_path": class_path}])):
        with pytest.raises(CheckpointError, match=rf"'{class_path}' is not part of geoeq.*trust='stranger\.evil'"):
            from_config(described, Model)


def test_wrong_arguments():
    with pytest.raises(RecipeError, match=r"EGNN: No argument is called 'widht'. Did you mean 'width'"):
        from_config(config(widht=3), Model)
    with pytest.raises(RecipeError, match=r"GraphScalar: .*'name'"):
        from_config({"class_path": "geoeq.models.GraphScalar"}, Head)
    with pytest.raises(RecipeError, match="is not a Configurable"):
        from_config(config(heads=[{"class_path": "os.system", "init_args": {"command": "true"}}]), Model, trust=True)


def test_what_json_cannot_hold_is_refused():
    model = EGNN([GraphScalar("gap")], width=4, layers=1)
    model.arguments["elements"] = {1, 6}
    with pytest.raises(RecipeError, match=r"EGNN\.elements is a set"):
        model.config()
