"""A wrapper in a recipe: the inner network gets the heads, and the checkpoint contains both."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from geoeq.errors import FieldError, RecipeError
from geoeq.files import read_log
from geoeq.models import EGNN, Dipole, Forces, FrameAveraging, GraphScalar, WithPriors, load_checkpoint
from geoeq.training.parsing import read_recipe
from geoeq.training.recipe import ModelSettings
from geoeq.training.run import train
from geoeq.training.setup import build_model

RECIPE = """
dataset: qm7
target: atomization_energy
sample: true
model:
  class_path: geoeq.models.FrameAveraging
  init_args:
    frames: FRAMES
    model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}
epochs: 1
batch_size: 32
threads: 1
device: cpu
"""


@pytest.mark.parametrize("frames", ["full", "stochastic", "weighted"])
def test_a_recipe_with_a_wrapper_trains(tmp_path: Path, frames: str) -> None:
    file = tmp_path / "wrapped.yaml"
    file.write_text(RECIPE.replace("FRAMES", frames))
    recipe = read_recipe(file, [f"run={tmp_path / 'run'}"])
    train(recipe, file, Console(file=io.StringIO()))
    model, _ = load_checkpoint(tmp_path / "run")
    assert isinstance(model, FrameAveraging)
    assert isinstance(model.model, EGNN)
    assert model.frames == frames
    assert isinstance(model.model.heads[0], GraphScalar)
    assert model.elements


WRAPPERS = {
    "network": (
        "Canonicalization",
        [
            "canonicalizer:",
            "  class_path: geoeq.models.NetworkCanonicalizer",
            "  init_args:",
            "    group: SE(3)",
            "    network:",
            "      class_path: geoeq.models.VectorNeurons",
            "      init_args: {heads: [{class_path: geoeq.models.FrameVectors}], width: 4, cutoff: 3.0}",
        ],
        "{prior: 0.1, prior_angle: 0.1, orbit: 0.01}",
    ),
    "scores": (
        "Canonicalization",
        [
            "canonicalizer:",
            "  class_path: geoeq.models.ScoreCanonicalizer",
            "  init_args:",
            "    group: C4",
            "    network:",
            "      class_path: geoeq.models.FAENet",
            "      init_args: {heads: [{class_path: geoeq.models.FrameScore}], width: 8, layers: 1, cutoff: 3.0}",
        ],
        "{prior: 0.1}",
    ),
    "pca": ("Canonicalization", ["canonicalizer: {class_path: geoeq.models.PCACanonicalizer}"], "{}"),
    "group": ("GroupAveraging", ["over: D2"], "{}"),
    "samples": ("GroupAveraging", ["over: E(3)", "samples: 2", "seed: 0"], "{}"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_recipe_with_another_wrapper_trains(tmp_path: Path, name: str) -> None:
    wrapper, arguments, losses = WRAPPERS[name]
    file = tmp_path / "wrapped.yaml"
    text = RECIPE.replace("FrameAveraging", wrapper).replace("frames: FRAMES", "\n    ".join(arguments))
    file.write_text(text + f"loss: {{auxiliary: {losses}}}\n")
    recipe = read_recipe(file, [f"run={tmp_path / 'run'}"])
    train(recipe, file, Console(file=io.StringIO()))
    model, _ = load_checkpoint(tmp_path / "run")
    assert type(model).__name__ == wrapper
    assert isinstance(model.model, EGNN)
    (row,) = read_log(tmp_path / "run" / "log.csv")
    for loss in recipe.loss.auxiliary:
        assert row[f"train auxiliary {loss}"] > 0


def test_a_head_that_is_named_goes_inside_as_written() -> None:
    model = FrameAveraging(EGNN([Dipole("dipole")], width=8, layers=1))
    assert list(model.fields) == ["dipole"]
    assert isinstance(model.heads[0], Dipole)


def test_priors_are_a_line_of_a_recipe(tmp_path: Path) -> None:
    """They are within Forces and around the network, which has the heads that they read."""
    file = tmp_path / "priors.yaml"
    lines = [
        "dataset: qm7",
        "target: atomization_energy",
        "sample: true",
        "model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}",
        "priors: [{class_path: geoeq.models.ZBL, init_args: {cutoff: 1.5}}, {class_path: geoeq.models.Coulomb}]",
    ]
    file.write_text("\n".join(lines))
    recipe = dataclasses.replace(read_recipe(file, []), target=["energy", "forces", "stress"])
    model = build_model(recipe)
    assert isinstance(model, Forces)
    assert model.stress
    assert model.title == "EGNN + ZBL + Coulomb"
    inner = model.model.model
    assert [head.names for head in inner.heads] == [("energy",), ("charges",)]
    assert inner.heads[1].conserve
    around = {"class_path": "geoeq.models.Forces", "init_args": {"model": dataclasses.asdict(recipe.model)}}
    explicit = build_model(dataclasses.replace(recipe, model=ModelSettings(**around)))
    assert explicit.config() == model.config()
    charges = build_model(dataclasses.replace(recipe, target=["energy", "charges"]))
    assert charges.model.heads[1].conserve  # a target that a prior reads has the prior's head
    with pytest.raises(FieldError, match="directly, without those of the priors"):
        build_model(dataclasses.replace(recipe, forces="direct", target=["energy", "forces"]))
    for given, said in (
        ("[{class_path: geoeq.models.ZBL, init_args: {cutof: 1}}]", r"priors\[0\].*ZBL has no argument 'cutof'"),
        ("[geoeq.models.ZBL]", r"'priors\[0\]' must be a mapping of settings to values"),
        ("geoeq.models.ZBL", "'priors' must be a list"),
    ):
        with pytest.raises(RecipeError, match=said):
            read_recipe(file, [f"priors={given}"])
    with pytest.raises(FieldError, match="priors are added to an 'energy'"):
        build_model(read_recipe(file, []))


@pytest.mark.slow
def test_a_network_beside_priors_is_trained_and_read_again(tmp_path: Path) -> None:
    """Energies and forces of a periodic sample; the checkpoint has the priors."""
    file = tmp_path / "priors.yaml"
    lines = [
        "dataset: lips",
        "target: [energy, forces]",
        "sample: true",
        "model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}",
        "priors: [{class_path: geoeq.models.ZBL}]",
        "loss: {name: huber, per_atom: true, weights: {forces: 10}}",
        "epochs: 1",
        "threads: 1",
        "device: cpu",
    ]
    file.write_text("\n".join(lines))
    train(read_recipe(file, [f"run={tmp_path / 'run'}"]), file, Console(file=io.StringIO()))
    model, _ = load_checkpoint(tmp_path / "run")
    assert isinstance(model, Forces)
    assert isinstance(model.model, WithPriors)
    assert model.title == "EGNN + ZBL"
    assert model.heads[0].references.abs().max() > 1
