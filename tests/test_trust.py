"""Files that name code outside geoeq: nothing is imported, so a module in the current folder leaves no mark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from geoeq.cli.main import main
from geoeq.data import load, read_card
from geoeq.data.preparation.reading import make_reader
from geoeq.errors import CheckpointError, DataError, GeoeqError, RecipeError
from geoeq.models import EGNN, GraphScalar, Model, load_checkpoint, save_checkpoint
from geoeq.models.config import from_config
from geoeq.resources import share
from geoeq.simulate import GeoeqCalculator
from geoeq.trust import check_trusted

ROOT = Path(__file__).resolve().parent.parent
MARK = "from pathlib import Path\nPath({!r}).touch()\n"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that the code in the current folder would create."""
    path = tmp_path / "mark"
    here = tmp_path / "here"
    (here / "stranger").mkdir(parents=True)  # a namespace package
    for name in ("stranger/evil.py", "argparse.py", "rich.py", "yaml.py"):
        (here / name).write_text(MARK.format(str(path)))
    monkeypatch.chdir(here)
    paths = list(sys.path)
    yield path
    sys.path[:] = paths
    for name in ("stranger", "stranger.evil"):
        sys.modules.pop(name, None)


def checkpoint(class_path: str, head: bool = False) -> Path:
    folder = Path("run")
    save_checkpoint(EGNN([GraphScalar("energy")], width=4, layers=1), folder)
    description = json.loads((folder / "model.json").read_text())
    config = description["model"]
    (config["init_args"]["heads"][0] if head else config)["class_path"] = class_path
    (folder / "model.json").write_text(json.dumps(description))
    return folder


COMMANDS = {
    "evaluate": [],
    "predict": ["--smiles", "O"],
    "check": [],
    "md": ["water.xyz", "--ensemble", "nve", "--steps", "1"],
    "calibrate": [],
    "export": ["out.pt2"],
    "sample": ["water.xyz", "--count", "1", "--out", "out.xyz"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("class_path", ["stranger.evil.Model", "unittest.__main__.Model"])
def test_no_command_imports_what_a_checkpoint_names(
    command: str, class_path: str, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("water.xyz").write_text("3\n\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n")
    assert main([command, str(checkpoint(class_path)), *COMMANDS[command]]) == 2
    assert class_path in capsys.readouterr().err
    assert not mark.exists()
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("stranger.evil.Model", "not part of geoeq"),
        ("stranger.evil:Model", "not part of geoeq"),
        ("geoeqish.Model", "not part of geoeq"),
        ("__main__.Model", "not part of geoeq"),
        ("unittest.__main__.TestProgram", "a program"),
        ("geoeq.__main__.main", "a program"),
        ("geoeq.models.networks.egnn.os.system", "no module"),
        ("geoeq.files.os.system", "no module"),
        ("geoeq.files.write_text", "not a"),
        ("geoeq.models.networks.egnn.Tensor", "not a"),
        ("geoeq.models.checkpoint.Path", "not a"),
        ("os.system", "not a"),  # of a module that is imported: it is not called
    ],
)
@pytest.mark.parametrize("head", [False, True])
def test_class_paths_that_are_refused(class_path: str, message: str, head: bool, mark: Path) -> None:
    folder = checkpoint(class_path, head)
    for open_it in (load_checkpoint, GeoeqCalculator):
        with pytest.raises(CheckpointError, match=message):
            open_it(folder)
    assert not mark.exists()


def test_trust_names_modules(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    config = {"class_path": "stranger.evil.Model"}
    for trust in (False, [], "strange", ["stranger.evil.Model", "other"]):
        with pytest.raises(CheckpointError, match=r"trust='stranger.evil', or --trust stranger.evil"):
            from_config(config, Model, trust=trust)
    assert not mark.exists()
    for allowed in (True, "stranger", ["other", "stranger.evil"]):
        with pytest.raises(RecipeError, match="has no class 'Model'"):
            from_config(config, Model, trust=allowed)
    assert mark.exists()
    with pytest.raises(RecipeError, match="has no class 'Model'"):  # now it is imported: nothing more can run
        from_config(config, Model)
    with pytest.raises(GeoeqError, match="a program"):
        check_trusted("unittest.__main__.main", True, CheckpointError, "it")


def test_the_command_line_trusts_a_module_in_the_current_folder(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(checkpoint("stranger.evil.Model"))]
    assert main([*arguments, "--trust", "another"]) == 2
    assert not mark.exists()
    assert main([*arguments, "--trust", "stranger.evil"]) == 2
    assert "has no class 'Model'" in capsys.readouterr().err
    assert mark.exists()


def foreign_card(reader: str) -> Path:
    text = (share("datasets") / "qm7" / "card.yaml").read_text().replace("geoeq.data.qm7.QM7Reader", reader)
    Path("card.yaml").write_text(text)
    return Path("card.yaml")


@pytest.mark.parametrize("action", ["fetch", "prepare", "info", "doctor"])
def test_no_command_imports_the_reader_of_a_card(action: str, mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", action, str(foreign_card("stranger.evil.Reader"))]) == 2
    assert "--trust stranger.evil" in capsys.readouterr().err
    assert not mark.exists()


def test_the_reader_of_a_card_needs_trust(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    card = foreign_card("stranger.evil.Reader")
    with pytest.raises(DataError, match=r"the reader 'stranger.evil.Reader' is not part of geoeq"):
        load(card)
    assert read_card(card, trust="stranger").reader == "stranger.evil.Reader"
    assert not mark.exists()
    for reader in ("geoeq.files.write_text", "geoeq.data.card.Card", "geoeq.models.EGNN"):
        with pytest.raises(DataError, match="is not a class with 'version' and 'read'"):
            make_reader(read_card(foreign_card(reader)))


def test_the_module_geoeq_does_not_import_from_the_current_folder(mark: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, "-m", "geoeq", "--version"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("geoeq ")
    assert not mark.exists()
