"""The folder of a run: which recipe it belongs to, and how far it came."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from geoeq.errors import RecipeError
from geoeq.files import write_text
from geoeq.training.recipe import ModelSettings, Recipe
from geoeq.typed import differences

__all__ = ["RunFolder"]

#: All that a run ever writes into its folder.
_WRITTEN = {"recipe.yaml", "environment.json", "log.csv", "state.pt", "results.json", "speed.json"}
_WRITTEN |= {"checkpoint", "tensorboard"}


class RunFolder:
    """A folder that holds one run of one recipe.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, recipe: Recipe, *, again: bool = False) -> None:
        """Whether the folder can take ``recipe``: it is new, empty, or holds a run of the same.

        Args:
            recipe: the settings.
            again: throw away what an earlier run left here.

        Raises:
            RecipeError: it holds a run of another recipe, or files that are no run's.
        """
        file = self.path / "recipe.yaml"
        if again and file.is_file():
            self._clear()
        elif file.is_file():
            # A setting that there was not yet had the effect of its default.
            before = Recipe("", "", ModelSettings("")).to_dict() | self._read(file)
            found = differences(before, recipe.to_dict(), set(recipe.decides()))
            if found:
                raise RecipeError(
                    f"The folder '{self.path}' holds a run of another recipe ({'; '.join(found[:3])}). "
                    "Choose another folder with run=FOLDER (compare: --run FOLDER), or throw that run away: --again."
                )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise RecipeError(f"The folder '{self.path}' holds other files. Choose another with run=FOLDER.")

    def start(self, recipe: Recipe) -> None:
        """Make the folder, with the recipe in it."""
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(self.path / "recipe.yaml", text)

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file into the folder."""
        write_text(self.path / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder; None if it is not there."""
        file = self.path / name
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def results(self) -> dict[str, Any] | None:
        """What a finished run found; None while it is unfinished."""
        return self.read_json("results.json")

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise RecipeError(f"{file} is truncated or altered. Delete its folder to start again.") from error
        return found if isinstance(found, dict) else {}

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.name in _WRITTEN or path.suffix == ".png" or path.name.startswith("."):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
