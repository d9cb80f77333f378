"""Recipes: what is read, and the text of every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoeq.errors import RecipeError
from geoeq.training.parsing import find_recipe, read_recipe

GOOD = """
dataset: qm7
target: atomization_energy
model: {class_path: geoeq.models.EGNN, init_args: {width: 16, cutoff: 5}}
optimizer: {lr: 5e-4, betas: [0.9, 0.99]}
"""


def read(tmp_path: Path, text: str, *settings: str) -> object:
    path = tmp_path / "egnn.yaml"
    path.write_text(text)
    return read_recipe(path, settings)


def test_values_get_their_types(tmp_path: Path) -> None:
    recipe = read(tmp_path, GOOD)
    assert recipe.optimizer.lr == 5e-4
    assert recipe.optimizer.betas == (0.9, 0.99)
    assert recipe.model.init_args == {"width": 16, "cutoff": 5.0}
    assert isinstance(recipe.model.init_args["cutoff"], float)
    assert recipe.targets == ["atomization_energy"]
    assert recipe.schedule.name == "constant"


def test_command_line_goes_over_the_file(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        GOOD,
        "optimizer.lr=1e-2",
        "model.init_args.layers=3",
        "target=[gap, homo]",
        "ema=null",
        "precision=64",
    )
    assert recipe.optimizer.lr == 1e-2
    assert recipe.optimizer.betas == (0.9, 0.99)
    assert recipe.model.init_args == {"width": 16, "cutoff": 5.0, "layers": 3}
    assert recipe.targets == ["gap", "homo"]
    assert recipe.precision == "64"


def test_one_size_of_batches_takes_the_place_of_another_and_says_so(tmp_path: Path) -> None:
    import yaml

    path, lines = tmp_path / "egnn.yaml", []
    path.write_text(GOOD)
    assert read_recipe(path, notify=lines.append).batch_limit == {"batch_size": 32}
    assert read_recipe(path, ["batch_edges=7"], lines.append).batch_limit == {"batch_edges": 7}
    path.write_text(f"{GOOD}\nbatch_size: 8\n")
    assert read_recipe(path, ["batch_size=9"], lines.append).batch_limit == {"batch_size": 9}
    assert lines == []
    recipe = read_recipe(path, ["batch_atoms=2000"], lines.append)
    assert recipe.batch_limit == {"batch_atoms": 2000}
    assert read(tmp_path, yaml.safe_dump(recipe.to_dict())) == recipe
    assert lines == ["batch_atoms=2000 takes the place of batch_size: 8 in egnn.yaml."]
    path.write_text(f"{GOOD}\nbatch_size: 8\nbatch_edges: 300\n")
    with pytest.raises(RecipeError, match=r"egnn.yaml: batch_size: 8 and batch_edges: 300 each say how large a batch"):
        read_recipe(path)
    assert read_recipe(path, ["batch_size=null"]).batch_limit == {"batch_edges": 300}
    assert read_recipe(path, ["batch_size=null", "batch_edges=null"]).batch_limit == {"batch_size": 32}


def test_heads_stay_as_they_are_written(tmp_path: Path) -> None:
    head = {"class_path": "geoeq.models.GraphScalar", "init_args": {"name": "gap", "reduce": "sum"}}
    recipe = read(tmp_path, GOOD, f"model.init_args.heads=[{head}]")
    assert recipe.model.init_args["heads"][0]["class_path"] == "geoeq.models.GraphScalar"
    assert recipe.model.init_args["heads"][0]["init_args"]["reduce"] == "sum"


def test_a_resolved_recipe_reads_back_the_same(tmp_path: Path) -> None:
    import yaml

    recipe = read(tmp_path, GOOD)
    again = read(tmp_path, yaml.safe_dump(recipe.to_dict()))
    assert again == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimizer.lrr=1", "command line: optimizer: No setting is called 'lrr'. Did you mean 'lr'? Known: betas"),
        ("epoch=3", "command line: No setting is called 'epoch'. Did you mean 'epochs'?"),
        ("epochs=many", "command line: 'epochs' must be a whole number, not 'many'."),
        ("epochs=2.5", "command line: 'epochs' must be a whole number, not 2.5."),
        ("epochs=null", "command line: 'epochs' must be a whole number, not null."),
        ("epochs=0", "'epochs' must be 1 or more, not 0."),
        ("ema=1.5", "'ema' must be between 0 and 1, or null, not 1.5."),
        ("optimizer.lr=-1", "optimizer: 'lr' must be above 0, not -1.0."),
        ("optimizer.betas=[0.9]", "command line: optimizer: 'betas' must be a list of 2 (a number, a number), not"),
        ("optimizer.name=adan", "command line: optimizer: No optimizer is called 'adan'. Did you mean 'adam'?"),
        ("precision=16", "command line: No precision is called '16'. Known: 32, 64, bf16-mixed."),
        ("optimizer=fast", "command line: 'optimizer' must be a section of settings, not 'fast'."),
        ("sample=3", "command line: 'sample' must be true or false, not 3."),
        ("loss.weights={gap: x}", "command line: loss: 'weights' must be a section of settings (each a number)"),
        ("model.init_args.widht=3", "model.init_args: No argument of EGNN is called 'widht'. Did you mean 'width'?"),
        ("model.init_args.width=wide", "command line: model.init_args: 'width' must be a whole number, not 'wide'."),
        ("model.class_path=geoeq.models.EGNM", "In geoeq.models: No class is called 'EGNM'. Did you mean 'EGNN'?"),
        ("model.class_path=geoeqq.EGNN", "There is no module 'geoeqq' for the class 'geoeqq.EGNN'."),
        ("model.class_path=EGNN", "'class_path' must be as in 'geoeq.models.EGNN', not 'EGNN'."),
        ("lr", "command line: 'lr' is not a setting. Write it as in optimizer.lr=1e-3."),
        ("epochs=[1", "command line: epochs: '[1' is not a YAML value."),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(tmp_path, GOOD, change)
    assert message in str(error.value)


def test_the_file_is_named_where_the_mistake_is_in_it(tmp_path: Path) -> None:
    text = GOOD.replace("lr: 5e-4", "lrr: 5e-4")
    with pytest.raises(RecipeError) as error:
        read(tmp_path, text)
    assert str(error.value) == (
        "egnn.yaml: optimizer: No setting is called 'lrr'. Did you mean 'lr'? Known: betas, lr, name, weight_decay."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target: gap\nmodel: {class_path: geoeq.models.EGNN}", "egnn.yaml: The setting 'dataset' is missing."),
        ("dataset: [", "egnn.yaml: This is not YAML:"),
        ("hello", "egnn.yaml: A recipe is 'setting: value' lines, and this file holds none."),
        ("", "this file holds none."),
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        read(tmp_path, text)
    assert message in str(error.value)


def test_shipped_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("qm7/egnn").name == "egnn.yaml"
    assert find_recipe("recipes/qm7/egnn.yaml") == find_recipe("qm7/egnn")
    with pytest.raises(RecipeError, match="Did you mean 'qm7/egnn'"):
        find_recipe("qm7/eggn")
