"""The data are checked before training: warnings are printed, and an error stops the run unless it is overridden."""

from __future__ import annotations

from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from rich.console import Console

from geoeq.cli.main import main
from geoeq.data import load
from geoeq.errors import RecipeError


@pytest.fixture
def gradients(tmp_path: Path) -> Path:
    """Ethanol with gradients in the place of forces."""
    dataset = load("rmd17", sample=True)
    frames = []
    for place in range(60):
        data = dataset[place]
        atoms = Atoms(numbers=data.z.numpy(), positions=data.pos.double().numpy())
        atoms.info["REF_energy"] = float(dataset.targets["energy"][place])
        atoms.arrays["REF_forces"] = -dataset.targets["forces"][dataset.ptr[place] : dataset.ptr[place + 1]]
        frames.append(atoms)
    ase.io.write(tmp_path / "gradients.xyz", frames)
    return tmp_path / "gradients.xyz"


def test_an_error_stops_the_training(train_small, recipe_file: Path, gradients: Path, console: Console) -> None:
    settings = [f"dataset={gradients}", "sample=false", "target=[energy, forces]", "epochs=1"]
    with pytest.raises(RecipeError, match=r"small.yaml: dataset: .*the forces are gradients.*doctor: false"):
        train_small(*settings)
    folder, results = train_small(*settings, "doctor=false", folder="knowingly")
    assert len(results) == 2
    assert (folder / "results.json").exists()


def test_healthy_data_are_trained_on_without_a_word(train_small, console: Console) -> None:
    train_small("epochs=1")
    assert "Data:" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_no_doctor_on_the_command_line(
    recipe_file: Path, gradients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(gradients.parent)
    settings = ["dataset=gradients.xyz", "sample=false", "target=[energy, forces]", "epochs=1", "run=run"]
    assert main(["train", str(recipe_file), *settings]) == 2
    assert "the forces are gradients" in capsys.readouterr().err
    assert main(["train", str(recipe_file), "--no-doctor", *settings]) == 0
