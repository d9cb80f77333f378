"""What is exported is the model: for any sizes, before it is written and when it is loaded, in every engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet
from torch import nn
from torch._dynamo.utils import counters

import geoeq.models
from geoeq.cli.main import main
from geoeq.errors import CheckpointError, InputError, UnknownElementError
from geoeq.fields import FIELDS
from geoeq.geometry.random_structures import random_batch
from geoeq.models import EGNN, Forces, GraphScalar, Model, NodeVector
from geoeq.models.checkpoint import save_checkpoint
from geoeq.simulate import GeoeqCalculator, export_potential, load_potential
from geoeq.simulate.engines.verification import TOLERANCES

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture
def argon(ours, folder):
    """The file of a pair potential, made once."""
    path = folder / "argon.pt2"
    if not path.exists():
        export_potential(ours().model, path, compiled=False)
    return path


def network(name="EGNN", dtype=torch.float64):
    torch.manual_seed(0)
    model = getattr(geoeq.models, name).example()
    if "energy" not in model.fields or not model.conservative:
        model = type(model)([GraphScalar("energy")], **{k: v for k, v in model.arguments.items() if k != "heads"})
    return model.to(dtype)


def crystal(repeat=2):
    atoms = bulk("Ar", a=5.3, cubic=True) * repeat
    atoms.rattle(0.1, seed=1)
    return atoms


def bare(batch):
    """Without what this potential does not ask for."""
    for name in ("vel", "charge", "x", "tags"):
        del batch[name]
    return batch


def assert_same(potential, model, batch, tolerance):
    with torch.no_grad():
        found, expected = potential(batch), model(batch)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        scale = max(float(value.abs().max()), 1e-3)
        assert float((found[name] - value).abs().max()) <= tolerance * scale


def test_structures_of_any_size(argon, ours):
    potential = load_potential(argon)
    for sizes in ((1,), (2,), (6,), (1, 9, 3), (40, 23)):
        for periodic in (True, False):
            batch = bare(random_batch(sizes, periodic=periodic, seed=sum(sizes)))
            assert ("stress" in potential(batch)) == periodic
            assert_same(potential, ours().model, batch, 1e-12)


def test_says_what_it_is(argon, ours):
    potential, model = load_potential(argon), ours().model
    assert potential.fields == model.fields
    assert potential.cutoff == model.cutoff
    assert potential.conservative
    assert not potential.compiled
    with zipfile.ZipFile(argon) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("geoeq.json"))
        description = json.loads(archive.read(entry))
    assert description["inputs"] == ["positions", "numbers", "batch", "cells", "edges", "shifts"]
    assert description["outputs"] == [
        {"name": "energy", "unit": "eV"},
        {"name": "forces", "unit": "eV/Å"},
        {"name": "strain_derivative", "unit": "eV"},
    ]
    assert len(description["sha256"]) == 64


def test_runs_in_ase_as_the_model_does(argon, ours):
    ends = []
    for calculator in (ours(), GeoeqCalculator(argon)):
        atoms = crystal()
        atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)))
        atoms.calc = calculator
        VelocityVerlet(atoms, 2 * units.fs).run(30)
        ends.append((atoms.positions, atoms.get_stress(), atoms.get_total_energy()))
        assert calculator.neighbor_list.rebuilds < 10
    for found, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-10)
    with pytest.raises(InputError, match="neither can be changed"):
        GeoeqCalculator(argon, dtype=torch.float32)
    assert "stress" not in GeoeqCalculator(argon, stress=False).implemented_properties


def test_nothing_is_compiled_for_a_number_of_atoms(argon):
    """Sizes are symbols in the graph of a file: it is made once, and no run of it compiles anything."""
    calculator = GeoeqCalculator(argon)
    counters.clear()
    for atoms in (crystal(1), crystal(2), crystal(1)[:3], crystal(3), Atoms("Ar2", [[0, 0, 0], [0, 0, 4.0]])):
        atoms.calc = calculator
        assert np.isfinite(atoms.get_forces()).all()
    assert not counters["stats"]
    assert not counters["inductor"]
    compiled = torch.compile(torch.sin, backend="eager", dynamic=False)
    for size in (3, 4, 5):
        compiled(torch.zeros(size))
    assert counters["stats"]["unique_graphs"] == 3  # what it would look like


def test_runs_in_torchsim_as_the_model_does(argon, ours):
    torch_sim = pytest.importorskip("torch_sim")
    from geoeq.simulate.engines.torchsim import TorchSimModel

    state = torch_sim.io.atoms_to_state([crystal(), crystal(1)], "cpu", torch.float64)
    found, expected = TorchSimModel(argon)(state), TorchSimModel(ours().model, "cpu")(state)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)


class Branching(nn.Module):
    """A pair potential that is another one in large structures: a graph can hold one of them only."""

    elements = None
    fields = MappingProxyType({"energy": FIELDS["energy"]})

    def __init__(self, inner):
        super().__init__()
        self.inner, self.cutoff = inner, inner.cutoff

    def forward(self, data):
        energy = self.inner(data)["energy"]
        return {"energy": energy * (2.0 if data.pos.shape[0] > 40 else 1.0)}


class Reading(Branching):
    """It looks at a value."""

    def forward(self, data):
        energy = self.inner(data)["energy"]
        return {"energy": energy * (2.0 if bool(data.pos.detach().sum() > 0) else 1.0)}


def test_a_graph_that_is_not_the_model_is_not_written(ours, tmp_path):
    inner = ours().model.model
    with pytest.raises(InputError, match=r"structures of \[.*\] atoms the graph differs from the model by"):
        export_potential(Forces(Branching(inner)), tmp_path / "out.pt2")
    with pytest.raises(InputError, match="no graph of it is valid for all sizes"):
        export_potential(Forces(Reading(inner)), tmp_path / "out.pt2")
    with pytest.raises(InputError, match=r"suffix \.pt2"):
        export_potential(Forces(inner), tmp_path / "out.pt")
    assert list(tmp_path.iterdir()) == []


def altered(path, target, change):
    """A copy of an archive with some of its entries changed."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        for name in source.namelist():
            copy.writestr(name, change(name, source.read(name)))
    return target


def test_a_file_that_is_wrong_is_not_loaded(argon, tmp_path):
    def newer(name, data):
        return data.replace(b'"version": 1', b'"version": 9') if name.endswith("geoeq.json") else data

    def other_answer(name, data):
        if not name.endswith("geoeq.json"):
            return data
        description = json.loads(data)
        description["test"]["outputs"][1]["values"][0] += 1.0
        return json.dumps(description).encode()

    def nothing_said(name, data):
        return b"{}" if name.endswith("geoeq.json") else data

    with pytest.raises(CheckpointError, match="version 9, written by geoeq"):
        load_potential(altered(argon, tmp_path / "newer.pt2", newer))
    with pytest.raises(CheckpointError, match="gives other numbers here"):
        load_potential(altered(argon, tmp_path / "other.pt2", other_answer))
    with pytest.raises(CheckpointError, match="not written by geoeq"):
        load_potential(altered(argon, tmp_path / "nothing.pt2", nothing_said))
    with pytest.raises(CheckpointError, match="There is no file"):
        load_potential(tmp_path / "missing.pt2")
    (tmp_path / "cut.pt2").write_bytes(argon.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated"):
        load_potential(tmp_path / "cut.pt2")


def refusal(path):
    """The message of a refusal; None if the file is loaded."""
    try:
        load_potential(path)
    except CheckpointError as error:
        return str(error)
    return None


def test_altered_bytes_are_refused_by_name(argon, tmp_path):
    """All checksums are compared, before the loader of PyTorch sees them; ``GEOEQ_FUZZ`` is the number of files."""
    random, content, path = np.random.default_rng(0), argon.read_bytes(), tmp_path / "x.pt2"
    messages = []
    for number in range(int(os.environ.get("GEOEQ_FUZZ", "30"))):
        damaged = bytearray(content[: len(content) - (int(random.integers(len(content))) if number % 3 == 0 else 0)])
        damaged[int(random.integers(len(damaged)))] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        messages.append(refusal(path))
    refused = [message for message in messages if message is not None]
    assert all("x.pt2" in message for message in refused)
    assert len(refused) > 2 / 3 * len(messages), "the others differ in names, dates or padding of the archive"


@pytest.mark.slow
@pytest.mark.parametrize("key", ["version", "outputs", "elements", "dtype", "device", "test"])
@pytest.mark.parametrize("value", [{}, [[]], "x", -1.5])
def test_an_altered_description_is_refused_by_name(argon, tmp_path, key, value):
    def change(name, data):
        return json.dumps(json.loads(data) | {key: value}).encode() if name.endswith("geoeq.json") else data

    assert "x.pt2" in refusal(altered(argon, tmp_path / "x.pt2", change))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float64) for name in geoeq.models.NETWORKS), ("EGNN", torch.float32), ("PONITA", torch.float32)],
)
def test_every_network(name, dtype, tmp_path):
    model = network(name, dtype)
    export = export_potential(model, tmp_path / "out.pt2", compiled=False)
    assert export.error <= TOLERANCES[str(dtype).removeprefix("torch.")]
    potential = load_potential(export.program)
    periodic = model.cutoff is not None
    for sizes in ((3, 8), (29,)):
        batch = bare(random_batch(sizes, periodic=periodic))
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        assert_same(potential, Forces(model, stress=periodic), batch, tolerance)


@pytest.mark.slow
def test_complete_graphs_and_forces_of_a_head(tmp_path):
    torch.manual_seed(0)
    for model in (
        EGNN([GraphScalar("energy")], width=8, layers=1),
        EGNN([GraphScalar("energy"), NodeVector("forces")], width=8, layers=1, cutoff=4.0),
    ):
        path = export_potential(model.double(), tmp_path / "out.pt2", compiled=False).program
        atoms, expected = molecule("CH3CH2OH"), molecule("CH3CH2OH")
        atoms.calc, expected.calc = GeoeqCalculator(path), GeoeqCalculator(model, "cpu")
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-12)
        assert atoms.calc.conservative == expected.calc.conservative


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # within PyTorch
def test_compiled_to_machine_code(ours, tmp_path):
    export = export_potential(ours().model, tmp_path / "argon.pt2", compiled=True, structures=[crystal()])
    potential = load_potential(export.compiled)
    assert potential.compiled
    for sizes in ((1,), (1, 9, 3), (40, 23)):
        for periodic in (True, False):
            assert_same(potential, ours().model, bare(random_batch(sizes, periodic=periodic)), 1e-12)
    atoms, expected = crystal(), crystal()
    atoms.calc, expected.calc = GeoeqCalculator(export.compiled), ours()
    np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-12)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:`isinstance.treespec:FutureWarning")  # within PyTorch
def test_a_program_without_python_runs_it(ours, tmp_path, checkout):
    """The program of the documentation, with libtorch."""
    package = export_potential(ours().model, tmp_path / "argon.pt2", compiled=True).compiled
    program, root = tmp_path / "run_potential", Path(torch.__file__).parent
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    links = [f"-L{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10", f"-Wl,-rpath,{root / 'lib'}"]
    source = checkout / "docs" / "run_potential.cpp"
    subprocess.run(["g++", "-std=c++20", "-O0", *includes, source, "-o", program, *links], check=True)
    environment = {"PATH": os.environ["PATH"]}  # nothing of this Python
    done = subprocess.run([program, package], check=True, capture_output=True, text=True, env=environment)
    energy, *forces = map(float, done.stdout.split())
    atoms = Atoms("HCO", [[0, 0, 0], [1.5, 0.1, 0.2], [0.3, 1.4, 0.1]], calculator=ours())
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(np.reshape(forces, (3, 3)), atoms.get_forces(), rtol=1e-10)


def test_without_a_compiler_it_is_said(ours, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    export = export_potential(ours().model, tmp_path / "argon.pt2")
    assert export.compiled is None
    assert "no-such-compiler" in str(export.note)
    with pytest.raises(InputError, match="cannot be compiled"):
        export_potential(ours().model, tmp_path / "argon.pt2", compiled=True)


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    model: Model = EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=4.0, elements=[1, 6, 8])
    save_checkpoint(model, tmp_path / "run")
    out = tmp_path / "out.pt2"
    assert main(["export", str(tmp_path / "run"), str(out), "--no-compile", "--dtype", "float64"]) == 0
    assert "largest relative difference from the model" in capsys.readouterr().out
    potential = load_potential(out)
    assert potential.elements == (1, 6, 8)
    with pytest.raises(UnknownElementError, match="Ar"):
        GeoeqCalculator(out).get_potential_energy(crystal())
