"""Training on a user's file: keys that were detected are reported, and requested targets must exist."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from rich.console import Console

from geoeq.data import load_card
from geoeq.errors import RecipeError
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train

SAMPLE = Path(load_card("3bpa").folder, "sample", "train_300K.xyz.gz")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    path = tmp_path / "mine.xyz"
    path.write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    return path


def settings(path: Path) -> list[str]:
    return [f"dataset={path}", "target=energy", "sample=false", "epochs=1", f"run={path.parent / 'run'}"]


def test_a_file_is_trained_on_and_what_was_found_is_said(recipe_file, frames):
    text = io.StringIO()
    train(read_recipe(recipe_file, settings(frames)), recipe_file, console=Console(file=text, width=300))
    said = text.getvalue()
    assert "on 16 structures of" in said
    assert "target energy, on" in said
    assert "energy is read from the key 'energy' (detected)." in said
    assert "forces is read from the key 'forces' (detected)." in said


def test_never_without_forces_that_were_asked_for(recipe_file, frames):
    def run(target: str) -> None:
        recipe = read_recipe(recipe_file, [*settings(frames), f"target={target}"])
        train(recipe, recipe_file, console=Console(file=io.StringIO()))

    text = frames.read_text()
    frames.write_text(text.replace("forces:R:3", "pull:R:3", 1))
    with pytest.raises(RecipeError, match=r"is called 'forces'. .* forces is not read: only 19 of 20 structures have"):
        run("[energy, forces]")
    frames.write_text(text.replace(" energy=", " REF_energy=1 energy=", 1))
    with pytest.raises(RecipeError, match=r"energy may be any of 'energy', 'REF_energy'. Choose one in a card"):
        run("energy")
