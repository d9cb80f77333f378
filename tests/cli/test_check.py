"""geoeq check: exit status, table, JSON, picture, and mistakes that are one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from geoeq.cli.main import main
from geoeq.models import EGNN, GraphScalar
from geoeq.models.checkpoint import save_checkpoint

BROKEN = """
import torch
from geoeq.models import EGNN, GraphScalar


def leaking(data):
    energy = torch.zeros(data.num_graphs, dtype=data.pos.dtype)
    return {"energy": energy.index_add(0, data.batch, data.pos.square().sum(-1))}


class Leaking(EGNN):
    @classmethod
    def example(cls):
        return cls([GraphScalar("energy")], width=4, layers=1, cutoff=4.0)

    def encode(self, data, graph):
        return super().encode(data, graph) + 0.1 * graph.positions[:, :1]


class Needs:
    def __init__(self, something):
        pass
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    Path("my_models.py").write_text(BROKEN)


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000


def test_a_good_model_with_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "geoeq.models.EGNN", "--layers"]) == 0
    out = capsys.readouterr().out
    assert "rotation" in out
    assert "layers.0 (EGNNLayer)" in out
    assert "All applicable checks passed." in out
    written = json.loads(Path("runs/check-EGNN/check.json").read_text())
    assert written["passed"] is True
    assert written["checks"]["rotation"]["error"] < 1e-9
    assert written["checks"]["stress"]["status"] == "not applicable"
    assert written["layers"]["passed"] is True
    assert is_picture(Path("runs/check-EGNN/check.png"))


def test_a_broken_model_is_status_1_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "my_models.Leaking", "--layers", "-o", "out"]) == 1
    out = capsys.readouterr().out
    assert "absolute coordinates leak in" in out
    assert "look at the code between the layers" in out
    written = json.loads(Path("out/check.json").read_text())
    assert written["passed"] is False
    assert written["checks"]["translation"]["status"] == "failed"
    assert written["checks"]["permutation"]["status"] == "passed"
    assert set(written["layers"]["culprits"]) == {"rotation", "reflection", "translation"}
    assert is_picture(Path("out/check.png"))


def test_a_function_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "my_models:leaking"]) == 1
    assert "translation of energy" in capsys.readouterr().out
    assert Path("runs/check-leaking/check.json").is_file()


def test_a_run_and_structures_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = EGNN([GraphScalar("energy")], width=4, layers=1, cutoff=4.0, elements=[1, 8])
    save_checkpoint(model, Path("runs/mine/checkpoint"))
    Path("water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    assert main(["check", "runs/mine", "--data", "water.xyz"]) == 0
    assert json.loads(Path("runs/mine/check/check.json").read_text())["passed"]
    assert main(["check", "runs/mine", "--elements", "C"]) == 2
    assert "the element C (z = 6) is not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["geoeq.models.EGNNN"], "'geoeq.models.EGNNN': the module 'geoeq.models' has no object 'EGNNN'. Did you"),
        (["geoeq.modls.EGNN"], "'geoeq.modls.EGNN': there is no module 'geoeq.modls'"),
        (["runs/nothing"], "There is no trained model in 'runs/nothing'"),
        (["my_models.Needs"], "'my_models.Needs' is a class that cannot be instantiated without arguments"),
        (["my_models:leaking", "--layers"], "--layers tests the layers of a network, and 'my_models:leaking' is"),
        (["geoeq.models.EGNN", "--elements", "H,Xy"], "--elements H,Xy: 'Xy' is not an element"),
        (["geoeq.layers.EGNNLayer"], "EGNNLayer is a layer: geoeq.symmetry.assert_equivariant checks it."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not Path("runs").exists()
