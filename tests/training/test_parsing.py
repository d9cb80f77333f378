"""Recipe files: types, inheritance, overrides, names and patterns, and the text of every error."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from geoeq.errors import RecipeError
from geoeq.training.parsing import find_recipe, find_recipes, read_recipe, shipped_recipes
from geoeq.training.recipe import About, Recipe

RESOLVED = Path(__file__).parent / "resolved_recipes.json"

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


def test_an_overridden_batch_limit_replaces_another_one_and_says_so(tmp_path: Path) -> None:
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
    assert lines == ["batch_atoms=2000 replaces batch_size: 8 in egnn.yaml."]
    path.write_text(f"{GOOD}\nbatch_size: 8\nbatch_edges: 300\n")
    with pytest.raises(RecipeError, match=r"egnn.yaml: batch_size: 8 and batch_edges: 300 exclude each other"):
        read_recipe(path)
    assert read_recipe(path, ["batch_size=null"]).batch_limit == {"batch_edges": 300}
    assert read_recipe(path, ["batch_size=null", "batch_edges=null"]).batch_limit == {"batch_size": 32}


def test_overridden_epochs_replace_those_of_the_sample_and_say_so(tmp_path: Path) -> None:
    path, lines = tmp_path / "egnn.yaml", []
    path.write_text(f"{GOOD}\nsample_epochs: 20\n")

    def epochs(*overrides: str) -> tuple[int, int | None]:
        recipe = read_recipe(path, overrides, lines.append)
        return recipe.total_epochs, recipe.sample_epochs

    assert epochs("sample=true") == (20, 20)
    assert epochs("epochs=5") == (5, 20)
    assert epochs("sample=true", "epochs=5", "sample_epochs=6") == (6, 6)
    assert lines == []
    assert epochs("epochs=5", "sample=true") == (5, None)
    assert lines == ["epochs=5 replaces sample_epochs: 20 in egnn.yaml."]


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
        ("optimizer.lrr=1", "command line: optimizer has no setting 'lrr'. Did you mean 'lr'? Known: betas"),
        ("epoch=3", "command line: the recipe has no setting 'epoch'. Did you mean 'epochs'?"),
        ("epochs=many", "command line: the setting 'epochs' must be a whole number, not 'many'."),
        ("epochs=2.5", "command line: the setting 'epochs' must be a whole number, not 2.5."),
        ("epochs=null", "command line: the setting 'epochs' must be a whole number, not null."),
        ("epochs=0", "command line: 'epochs' must be 1 or more, not 0."),
        ("ema=1.5", "command line: 'ema' must be between 0 and 1, or null, not 1.5."),
        ("optimizer.lr=-1", "command line: optimizer: 'lr' must be above 0, not -1.0."),
        ("optimizer.betas=[0.9]", "command line: the setting 'optimizer.betas' must be a list of 2 (a number"),
        ("optimizer.name=adan", "command line: the setting 'optimizer.name' cannot be 'adan'. Did you mean 'adam'?"),
        ("precision=16", "command line: the setting 'precision' cannot be 16. Known: 32, 64, bf16-mixed."),
        ("optimizer=fast", "command line: the setting 'optimizer' must be a mapping of settings to values, not"),
        ("sample=3", "command line: the setting 'sample' must be true or false, not 3."),
        ("loss.weights={gap: x}", "command line: the setting 'loss.weights.gap' must be a number, not 'x'."),
        ("model.init_args.widht=3", "command line: model.init_args: EGNN has no argument 'widht'. Did you mean 'wi"),
        ("model.init_args.width=wide", "the setting 'model.init_args.width' must be a whole number, not 'wide'."),
        ("model.class_path=geoeq.models.EGNM", "the module 'geoeq.models' has no class 'EGNM'. Did you mean 'EGNN'?"),
        ("model.class_path=geoeqq.EGNN", "command line: there is no module 'geoeqq' for 'geoeqq.EGNN'."),
        ("model.class_path=EGNN", "'model.class_path' must be a dotted path, as in 'geoeq.models.EGNN', not 'EGNN'."),
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
        "egnn.yaml: optimizer has no setting 'lrr'. Did you mean 'lr'? Known: betas, lr, name, weight_decay."
    )


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "egnn.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"^egnn\.yaml: this is not a text file in UTF-8: .*0xff in position 0"):
        read_recipe(tmp_path / "egnn.yaml")


def test_a_misspelt_shipped_recipe_to_inherit_suggests_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no file 'qm9/egn' .* Did you mean 'qm9/egnn'\? Known: .*nbody/egnn"):
        read(tmp_path, "inherit: qm9/egn")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target: gap\nmodel: {class_path: geoeq.models.EGNN}", "egnn.yaml: the setting 'dataset' is missing."),
        ("dataset: [", "egnn.yaml: this is not YAML:"),
        ("hello", "egnn.yaml: a recipe consists of 'setting: value' lines, and this file has none."),
        ("", "this file has none."),
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


def test_patterns_match_files_and_shipped_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = find_recipes("nbody/*-quick")
    assert len(quick) > 5
    assert {path.parent.name for path in quick} == {"nbody"}
    assert all(path.stem.endswith("-quick") for path in quick)
    assert find_recipes("recipes/nbody/*-quick.yaml") == quick
    assert find_recipes("qm7/egnn") == [find_recipe("qm7/egnn")]
    with pytest.raises(RecipeError, match=r"No recipe matches 'nbdy/\*'. Recipes that come with geoeq are in '3b"):
        find_recipes("nbdy/*")
    folder = tmp_path / "nbody"
    folder.mkdir()
    for name in ("b-quick.yaml", "a-quick.yaml"):
        (folder / name).write_text(GOOD)
    assert find_recipes("nbody/*-quick.yaml") == [Path("nbody/a-quick.yaml"), Path("nbody/b-quick.yaml")]
    assert find_recipes(f"{folder}/*.yaml") == [folder / "a-quick.yaml", folder / "b-quick.yaml"]
    assert find_recipes("nbody/*-quick") == quick


def test_shipped_recipes_are_described() -> None:
    recipes = {entry.name: entry for entry in shipped_recipes()}
    entry = recipes["qm7/egnn"]
    assert (entry.task, entry.model) == ("qm7: atomization_energy", "EGNN")
    assert entry.size == "5,700 structures, 36 epochs"
    assert entry.time == "219 s on 2 CPU cores"
    assert recipes["qm7/faenet-quick"].model == "FAENet in FrameAveraging"
    assert recipes["qm7/faenet"].time == ""


def inherit(tmp_path: Path, text: str, base: str = GOOD, *settings: str) -> Recipe:
    """Read a recipe with this text that inherits GOOD (or another text)."""
    (tmp_path / "base.yaml").write_text(base)
    path = tmp_path / "quick.yaml"
    path.write_text(f"inherit: base.yaml\n{text}")
    return read_recipe(path, settings)


def test_a_recipe_inherits_another_one_key_by_key(tmp_path: Path) -> None:
    recipe = inherit(tmp_path, "optimizer: {lr: 1.0}\nmodel: {init_args: {layers: 2}}\nepochs: 3")
    assert recipe.optimizer.lr == 1.0
    assert recipe.optimizer.betas == (0.9, 0.99)
    assert recipe.model.init_args == {"width": 16, "cutoff": 5.0, "layers": 2}
    assert (recipe.dataset, recipe.epochs) == ("qm7", 3)
    assert "inherit" not in recipe.to_dict()


def test_lists_and_null_replace_what_is_inherited(tmp_path: Path) -> None:
    base = f"{GOOD}\nema: 0.9\nearly_stop: 5"
    recipe = inherit(tmp_path, "target: [gap]\nema: null\noptimizer: {betas: [0.5, 0.6]}", base)
    assert recipe.targets == ["gap"]
    assert recipe.ema is None
    assert recipe.early_stop == 5
    assert recipe.optimizer.betas == (0.5, 0.6)


def test_another_class_drops_the_inherited_arguments(tmp_path: Path) -> None:
    recipe = inherit(tmp_path, "model: {class_path: geoeq.models.PONITA, init_args: {layers: 1}}")
    assert recipe.model.init_args == {"layers": 1}
    recipe = inherit(tmp_path, "model: {class_path: geoeq.models.EGNN, init_args: {layers: 1}}")
    assert recipe.model.init_args == {"width": 16, "cutoff": 5.0, "layers": 1}


def test_inheritance_goes_through_folders_and_chains(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "last.yaml"
    path.write_text("inherit: ../quick.yaml\nseed: 4")
    assert inherit(tmp_path, "epochs: 3").epochs == 3
    assert (read_recipe(path).epochs, read_recipe(path).seed, read_recipe(path).dataset) == (3, 4, "qm7")
    assert read_recipe(path, ["epochs=5"]).epochs == 5


def test_a_recipe_inherits_a_shipped_one_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("inherit: qm7/egnn\nepochs: 3")
    shipped = read_recipe(find_recipe("qm7/egnn"))
    assert shipped.about.time
    assert read_recipe(path) == dataclasses.replace(shipped, epochs=3, about=About())


@pytest.mark.parametrize(
    ("text", "base", "message"),
    [
        ("epoch: 3", GOOD, "quick.yaml: the recipe has no setting 'epoch'. Did you mean 'epochs'?"),
        ("epochs: 3", f"{GOOD}\nsede: 1", "base.yaml: the recipe has no setting 'sede'. Did you mean 'seed'?"),
        ("epochs: 3", f"{GOOD}\nema: 2", "base.yaml: 'ema' must be between 0 and 1, or null, not 2.0."),
        ("epochs: 3", f"{GOOD}\npriors: [{{class_path: x, a: 1}}]", "base.yaml: priors[0] has no setting 'a'."),
        ("epochs: 3", "inherit: bas.yaml", "base.yaml: inherit: there is no file 'bas.yaml' (relative to base.yaml)"),
        (
            "epochs: 3",
            "inherit: quick.yaml",
            "base.yaml: inherit: the recipes inherit each other in a circle: quick",
        ),
    ],
)
def test_mistakes_name_the_file_that_they_are_in(tmp_path: Path, text: str, base: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        inherit(tmp_path, text, base)
    assert message in str(error.value)


def test_a_missing_inherited_file_is_named_with_the_closest_one(tmp_path: Path) -> None:
    (tmp_path / "egnn.yaml").write_text(GOOD)
    (tmp_path / "quick.yaml").write_text("inherit: egn.yaml")
    with pytest.raises(RecipeError, match=r"quick.yaml: inherit: there is no file 'egn.yaml'.*you mean 'egnn.yaml'"):
        read_recipe(tmp_path / "quick.yaml")


def test_every_shipped_recipe_says_what_it_said_before() -> None:
    """The resolved settings were stored before recipes inherited each other; a new recipe is added to the file."""
    stored = json.loads(RESOLVED.read_text(encoding="utf-8"))
    for entry in shipped_recipes():
        resolved = read_recipe(entry.file).to_dict()
        del resolved["about"]
        assert json.loads(json.dumps(resolved)) == stored.pop(entry.name), entry.name
    assert not stored
