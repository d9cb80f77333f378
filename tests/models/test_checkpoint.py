"""Checkpoints: the same model comes back, and what cannot be read is named."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geoeq.errors import CheckpointError, UnknownElementError
from geoeq.files import file_sha256
from geoeq.models import EGNN, checkpoint, load_checkpoint, save_checkpoint
from geoeq.simulate import GeoeqCalculator
from geoeq.symmetry import random_batch


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(EGNN.example(), tmp_path / "model", {"note": "Å"})
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_gives_the_same_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    model = EGNN.example().to(dtype).eval()
    batch = random_batch()
    batch = batch.apply(lambda value: value.to(dtype) if value.is_floating_point() else value)
    save_checkpoint(model, tmp_path, {"data": {"name": "qm7"}})
    again, meta = load_checkpoint(tmp_path)
    assert meta == {"data": {"name": "qm7"}}
    assert not again.training
    assert again.config() == model.config()
    for name, value in model(batch).items():
        assert torch.equal(again(batch)[name], value)


OWN_MODEL = """
from e3nn import o3
from geoeq.layers import NodeEmbedding
from geoeq.models import GraphScalar, Model

class OwnModel(Model):
    def __init__(self, heads, width=4):
        super().__init__(heads, o3.Irreps(f"{width}x0e"), cutoff=3.0)
        self.embedding = NodeEmbedding(width)

    @classmethod
    def example(cls):
        return cls([GraphScalar("energy")])

    def encode(self, data, graph):
        return self.embedding(data)
"""


def test_a_users_model_needs_trust_and_knows_its_elements_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_model.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("own_model").OwnModel.example().double()
    batch = random_batch()
    batch.energy = torch.randn(batch.num_graphs, dtype=torch.float64)
    model.fit_heads(batch)
    save_checkpoint(model, tmp_path / "model")
    assert load_checkpoint(tmp_path / "model")[0].elements == model.elements  # its module is imported already
    monkeypatch.delitem(sys.modules, "own_model")
    with pytest.raises(CheckpointError, match=r"model\.json: .*'own_model\.OwnModel' is not part of geoeq.*trust="):
        load_checkpoint(tmp_path / "model")
    with pytest.raises(CheckpointError, match="trust='own_model'"):
        GeoeqCalculator(tmp_path / "model")
    assert GeoeqCalculator(tmp_path / "model", "cpu", trust=True).conservative
    again, _ = load_checkpoint(tmp_path / "model", trust=True)
    assert torch.equal(again(batch)["energy"], model.eval()(batch)["energy"])
    batch.z[0] = 92
    with pytest.raises(UnknownElementError, match="U"):
        again(batch)


def test_code_outside_geoeq_is_not_even_imported(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strangers_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    model = EGNN.example().config()
    model["init_args"]["heads"] = [{"class_path": "strangers_module.Head"}]
    for config in (model, {"class_path": "strangers_module.Model"}):
        edit(saved, model=config)
        with pytest.raises(CheckpointError, match=r"is not part of geoeq.*--trust"):
            load_checkpoint(saved)


def test_an_older_version_is_updated_step_by_step(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up version 1 called the width ``channels`` and the first layer ``conv``."""
    expected, _ = load_checkpoint(saved)
    config, tensors = expected.config(), load_file(saved / "model.safetensors")
    config["init_args"]["channels"] = config["init_args"].pop("width")
    save_file({name.replace("layers.0.", "conv."): t for name, t in tensors.items()}, saved / "model.safetensors")
    edit(saved, model=config, sha256=file_sha256(saved / "model.safetensors"), version=1)
    steps = []

    def rename_width(description, tensors):
        steps.append(1)
        description["model"]["init_args"]["width"] = description["model"]["init_args"].pop("channels")
        return description, tensors

    def rename_layer(description, tensors):
        steps.append(2)
        return description, {name.replace("conv.", "layers.0."): value for name, value in tensors.items()}

    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 3)
    monkeypatch.setattr(checkpoint, "UPDATES", {1: rename_width, 2: rename_layer})
    updated, meta = load_checkpoint(saved)
    assert steps == [1, 2]
    assert meta == {"note": "Å"}
    for name, value in expected(random_batch()).items():
        assert torch.equal(updated(random_batch())[name], value)
    monkeypatch.setattr(checkpoint, "UPDATES", {1: rename_width})
    with pytest.raises(CheckpointError, match=r"model\.json has format version 1.*no update for version 2"):
        load_checkpoint(saved)


def test_version_1_keeps_what_jumped(saved: Path) -> None:
    """Also in models inside models."""
    inner = EGNN.example().config()
    del inner["init_args"]["count"]
    framed = {"class_path": "geoeq.models.FrameAveraging", "init_args": {"model": inner}}
    model = {"class_path": "geoeq.models.Ensemble", "init_args": {"models": [inner, framed]}}
    updated, _ = checkpoint.UPDATES[1]({"model": model}, {})
    first, second = updated["model"]["init_args"]["models"]
    assert first["init_args"] == {**inner["init_args"], "count": "clamped"}
    assert second["init_args"] == {"images": "listed", "model": first}
    assert "count" not in inner["init_args"]
    assert load_checkpoint(saved)[0].arguments["count"] == "smooth"


def test_version_1_of_what_can_no_longer_be_computed_is_refused(saved: Path) -> None:
    arguments = {"heads": [], "self_per_edge": True}
    for cutoff, refused in ((4.0, True), (None, False)):
        model = {"class_path": "geoeq.models.SE3Transformer", "init_args": {**arguments, "cutoff": cutoff}}
        edit(saved, model=model, version=1)
        with pytest.raises(CheckpointError, match=r"model\.(json|safetensors)") as caught:  # without its weights
            load_checkpoint(saved)
        assert ("train it again" in str(caught.value)) == refused


def test_every_older_version_has_an_update() -> None:
    assert set(checkpoint.UPDATES) == set(range(1, checkpoint.FORMAT_VERSION))


def test_description_is_plain_json_with_units(saved: Path) -> None:
    description = json.loads((saved / "model.json").read_text(encoding="utf-8"))
    assert description["model"]["class_path"] == "geoeq.models.EGNN"
    assert description["fields"]["energy"] == {"level": "graph", "irreps": "0e", "unit": "eV"}
    assert description["cutoff"] == 4.0
    assert description["dtype"] == "float32"
    assert description["meta"] == {"note": "Å"}


def test_nothing_is_unpickled(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    load_checkpoint(saved)


def edit(folder: Path, **changes: object) -> None:
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "model.json").unlink(), "model.json is missing"),
        (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors is truncated or altered"),
        (lambda folder: flip(folder / "model.safetensors"), "model.safetensors is truncated or altered"),
        (lambda folder: truncate(folder / "model.json"), "model.json is truncated or altered"),
        (lambda folder: edit(folder, version=99), "model.json has format version 99"),
        (lambda folder: edit(folder, version=None), "model.json is altered: its version is None, not a whole number."),
        (lambda folder: edit(folder, format="other"), "model.json does not describe a model of geoeq"),
        (lambda folder: edit(folder, version=0), "model.json has format version 0, written by geoeq"),
        (lambda folder: edit(folder, dtype="float7"), "model.json is altered: its dtype is 'float7'"),
        (lambda folder: edit(folder, model={"class_path": "os.system"}), "class_path 'os.system' is not a Model"),
        (lambda folder: edit(folder, model={"class_path": "geoeq.models.GraphScalar"}), "is not a Model"),
        (lambda folder: edit(folder, model={"class_path": "geoeq.models.EGNM"}), "Did you mean 'EGNN'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(saved: Path, harm, message: str) -> None:
    harm(saved)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(saved)
    assert message in str(error.value)


def test_weights_of_another_model_are_named(saved: Path) -> None:
    config = EGNN.example().config()
    config["init_args"]["width"] = 16
    edit(saved, model=config)
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit geoeq\.models\.EGNN: ") as error:
        load_checkpoint(saved)
    assert "of another shape, such as " in str(error.value)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)
