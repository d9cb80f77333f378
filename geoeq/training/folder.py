"""Run folder: the recipe it belongs to, and the files in it."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from geoeq.documents import read_json, read_yaml
from geoeq.errors import CheckpointError, RecipeError
from geoeq.files import remove_stale, write_text
from geoeq.training.recipe import IRRELEVANT, ModelSettings, Recipe
from geoeq.typed import differences

__all__ = ["RunFolder", "choose_folder"]

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
        """Check that the folder is new, empty, or contains a run of the same recipe, possibly with fewer epochs.

        A finished run with fewer epochs is opened again, to be extended.

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
            changes = self.changes(recipe)
            if self.extends(recipe):
                for name in ("results.json", "speed.json"):
                    (self.path / name).unlink(missing_ok=True)
                self.start(recipe)
            elif changes:
                raise RecipeError(
                    f"The folder '{self.path}' contains a run of another recipe ({'; '.join(changes[:3])}). "
                    "Choose another folder with run=FOLDER (compare: --run FOLDER), or delete that run with --again."
                )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise RecipeError(f"The folder '{self.path}' contains other files. Choose another one with run=FOLDER.")

    @property
    def has_run(self) -> bool:
        """Whether the folder contains a run."""
        return (self.path / "recipe.yaml").is_file()

    def changes(self, recipe: Recipe) -> list[str]:
        """Describe how a recipe differs from that of the run in the folder; empty if they agree or there is no run."""
        return differences(self._before(), recipe.to_dict(), set(recipe.decides())) if self.has_run else []

    def extends(self, recipe: Recipe) -> bool:
        """Return whether a recipe only has more epochs than the run in the folder, whose state is still there."""
        if not self.has_run or not (self.path / "state.pt").is_file() or recipe.budget:
            return False
        before = self._before()
        keys = set(recipe.decides()) - {"epochs", "sample_epochs"}
        done = before["sample_epochs"] if before["sample"] and before["sample_epochs"] else before["epochs"]
        return not differences(before, recipe.to_dict(), keys) and recipe.total_epochs > done

    def accepts(self, recipe: Recipe) -> bool:
        """Return whether a run of this recipe can start, resume or be extended in the folder."""
        if self.has_run:
            return not self.changes(recipe) or self.extends(recipe)
        return not (self.path.is_dir() and any(self.path.iterdir()))

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

    def _before(self) -> dict[str, Any]:
        # A setting added since the earlier run had the effect of its default.
        return Recipe("", "", ModelSettings("")).to_dict() | self._read(self.path / "recipe.yaml")

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


def choose_folder(recipe: Recipe, file: Path, settings: Sequence[str] = (), *, again: bool = False) -> Path:
    """Return the run folder of a recipe; one that contains another run is passed over, unless the recipe names it.

    The next names add the overrides to the default name, as in ``runs/qm7-egnn-epochs3``, and then a number.

    Args:
        recipe: settings of the run.
        file: file of the recipe.
        settings: ``key=value`` overrides of the command line.
        again: an earlier run is to be deleted: take the folder of a run of this recipe, else the default one.
    """
    default = recipe.folder(file)
    if recipe.run is not None:
        return default
    names = [default]
    words = [_word(*pair.partition("=")[::2]) for pair in settings]
    suffix = "-".join(word for word in words if word)[:_LONGEST]
    if suffix:
        names.append(default.with_name(f"{default.name}-{suffix}"))
    numbered = (names[-1].with_name(f"{names[-1].name}-{number}") for number in itertools.count(2))
    for path in itertools.chain(names, numbered):
        folder = RunFolder(path)
        if folder.accepts(recipe) and not (again and not folder.has_run):
            return path
        if again and not path.is_dir():
            return default
    return default


#: Largest number of characters that overrides add to the name of a folder.
_LONGEST = 60


def _word(key: str, value: str) -> str:
    """Return an override as a part of a file name; empty for settings that do not change the result."""
    if key in IRRELEVANT:
        return ""
    name = key.rpartition(".")[2]
    text = name if value == "true" else f"no-{name}" if value == "false" else f"{name}{value}"
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-.")
