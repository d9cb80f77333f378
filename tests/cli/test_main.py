"""The command line: output, exit status, one line for each error, and complete help texts."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import geoeq
from geoeq.cli.main import COMMANDS, build_parser, main, parse


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path_factory.getbasetemp() / "cli-cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))


SMALL = ["--sample", "epochs=1", "model.init_args={width: 8, layers: 1, cutoff: 3.0}", "threads=1", "device=cpu"]


def test_from_training_to_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "qm7/egnn", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "linear model on composition" in out
    assert "atomization_energy [kcal/mol]" in out
    assert Path("runs/qm7-egnn/parity.png").is_file()

    assert main(["evaluate", "runs/qm7-egnn", "--split", "test"]) == 0
    assert "EGNN" in capsys.readouterr().out

    Path("water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    assert main(["predict", "runs/qm7-egnn", "water.xyz", "-o", "out.csv", "--unit", "atomization_energy=eV"]) == 0
    assert Path("out.csv").read_text().startswith("structure,formula,atomization_energy [eV]\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "nothing.yaml"], "There is no file 'nothing.yaml'. No recipe is called 'nothing'."),
        (["train", "qm7/egnn", "optimizer.lrr=1"], "command line: optimizer has no setting 'lrr'."),
        (["evaluate", "runs/nothing"], "There is no trained model in 'runs/nothing'"),
        (["predict", "runs/nothing", "water.xyz"], "There is no trained model in 'runs/nothing'"),
        (["predict", "runs/nothing", "water.xyz", "--unit", "gap"], "--unit gap: write it as in --unit gap=meV."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(geoeq.errors.RecipeError):
        main(["--debug", "train", "nothing.yaml"])


def test_an_interrupt_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from geoeq.training import parsing

    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parsing, "find_recipe", interrupt)
    assert main(["train", "qm7/egnn"]) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert main(["train", "qm7/egnn", "--sample"]) == 2
    assert re.search(r"pip install .*\[train\]", capsys.readouterr().err)


def test_a_class_of_the_user(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my_network.py").write_text("from geoeq.models import EGNN\n\nclass MyNetwork(EGNN):\n    pass\n")
    assert main(["train", "qm7/egnn", *SMALL, "model.class_path=my_network.MyNetwork"]) == 0
    assert "MyNetwork" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "my_network")  # as in another process
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != os.getcwd()])
    assert main(["evaluate", "runs/qm7-egnn"]) == 2
    assert "--trust my_network" in capsys.readouterr().err
    assert main(["evaluate", "runs/qm7-egnn", "--trust", "my_network"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "qm7/egnn", "--sampel"], "arguments: --sampel; 'geoeq train --help' lists the known ones"),
        (["--debug", "trian"], "error: No command is called 'trian'. Did you mean 'train'? Known: "),
        (["train"], "the following arguments are required: recipe\n"),
        ([], "Example: geoeq train qm7/egnn."),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_doctor_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert main(["data", "list"]) == 0
    assert "qm7" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from geoeq.cli.main import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'lightning', 'ase', 'e3nn', 'yaml', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Command, such as "data make" -> its parser."""
    found = {}

    def add(parser: argparse.ArgumentParser, command: str) -> None:
        found[command] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    add(child, f"{command} {name}".strip())

    add(build_parser(), "")
    return found


PARSERS = parsers()


@pytest.mark.parametrize("command", PARSERS)
def test_every_command_has_a_summary_and_an_example_that_parses(command: str) -> None:
    parser = PARSERS[command]
    assert parser.description
    assert parser.description[0].isupper()
    assert parser.description.endswith(".")
    example = re.match(r"Example: geoeq (.*?)(\. |$)", parser.epilog or "")
    assert example, f"geoeq {command} --help has no example"
    assert example[1].startswith(command)
    parse(shlex.split(example[1]))


@pytest.mark.parametrize("command", PARSERS)
def test_every_help_text_is_a_phrase_that_names_the_default(command: str) -> None:
    """More than one word; and for an option with a value, the default, unless it is required or may be repeated."""
    for action in PARSERS[command]._actions:
        text = action.help or ""
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction | argparse._VersionAction):
            continue
        assert len(text.split()) > 3, f"geoeq {command}: {action.dest}: '{text}'"
        optional = bool(action.option_strings) and not action.required and action.nargs != 0
        if optional and not isinstance(action, argparse._AppendAction) and action.dest not in WITHOUT_DEFAULT:
            assert "default" in text, f"geoeq {command}: {action.dest}: '{text}'"


#: Options whose absence means that the thing does not exist (a pressure without a barostat), or one of a pair.
WITHOUT_DEFAULT = {"steps", "time", "temperature", "pressure", "dask", "adsorbates", "frame"}


@pytest.mark.parametrize("command", ["evaluate", "predict", "check", "md", "calibrate", "sample", "export"])
def test_every_command_that_loads_a_run_has_trust(command: str) -> None:
    assert "--trust" in PARSERS[command].format_help()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_one_file(command: str) -> None:
    assert (Path(geoeq.__file__).parent / "cli" / f"{command}.py").is_file()


def test_python_m_geoeq_is_the_command_line() -> None:
    root = Path(geoeq.__file__).parents[1]
    command = [sys.executable, "-m", "geoeq", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == f"geoeq {geoeq.__version__}\n"
    wrong = subprocess.run([*command[:3], "evaluate", "nothing"], capture_output=True, text=True, cwd=root)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("There is no trained model in 'nothing'")


def test_recipes_are_listed_with_task_size_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "nbody/egnn*", "qm7/egnn"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["recipe", "task", "network", "training", "time"]
    assert [line.split()[0] for line in lines] == ["nbody/egnn", "nbody/egnn-quick", "qm7/egnn"]
    assert re.search(r"qm7: atomization_energy +EGNN +5,700 structures, 36 epochs +\d+ s on 2 CPU cores$", lines[2])
    assert lines[0].endswith("not measured")
    assert main(["recipes", "nbdy/*"]) == 2
    assert "No recipe matches 'nbdy/*'" in capsys.readouterr().err
