"""Run folder: the recipe it belongs to, and the files in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from geoeq.documents import read_json, read_yaml
from geoeq.errors import CheckpointError, RecipeError
from geoeq.files import remove_stale, write_text
from geoeq.training.recipe import ModelSettings, Recipe
from geoeq.typed import differences

__all__ = ["RunFolder"]

#: Files and folders that a run writes into its folder, besides plots.
_WRITTEN = {"recipe.yaml", "environment.json", "log.csv", "state.pt", "results.json", "speed.json"}
_WRITTEN |= {"checkpoint", "tensorboard"}


class RunFolder:
    """Folder with one run of one recipe.

    Args:
        path: path of the folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, recipe: Recipe, *, again: bool = False) -> None:
        """Check that the folder is new, empty, or contains a run of the same recipe.

        Args:
            recipe: settings of the run.
            again: delete an earlier run in the folder.

        Raises:
            RecipeError: the folder contains a run of another recipe, or other files.
        """
        remove_stale(self.path)
        file = self.path / "recipe.yaml"
        if again and file.is_file():
            self._clear()
        elif file.is_file():
            # A setting added since the earlier run had the effect of its default.
            before = Recipe("", "", ModelSettings("")).to_dict() | self._read(file)
            changes = differences(before, recipe.to_dict(), set(recipe.decides()))
            if changes:
                raise RecipeError(
                    f"The folder '{self.path}' contains a run of another recipe ({'; '.join(changes[:3])}). "
                    "Choose another folder with run=FOLDER (compare: --run FOLDER), or delete that run with --again."
                )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise RecipeError(f"The folder '{self.path}' contains other files. Choose another one with run=FOLDER.")

    def start(self, recipe: Recipe) -> None:
        """Create the folder, and write the resolved recipe into it."""
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(self.path / "recipe.yaml", text)

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Return the content of a JSON file in the folder; None if it does not exist."""
        file = self.path / name
        if not file.is_file():
            return None
        content = read_json(file, CheckpointError)
        if not isinstance(content, dict):
            raise CheckpointError(f"{file} is altered: it must be a mapping. Train again with --again.")
        return content

    def results(self) -> dict[str, Any] | None:
        """Return the results of a finished run; None while it is unfinished."""
        return self.read_json("results.json")

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            settings = read_yaml(file, RecipeError)
        except RecipeError as error:
            raise RecipeError(f"{file} is truncated or altered. Delete its folder to train from scratch.") from error
        return settings if isinstance(settings, dict) else {}

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.name in _WRITTEN or path.suffix == ".png" or path.name.startswith("."):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
