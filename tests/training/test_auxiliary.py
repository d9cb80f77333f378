"""Auxiliary losses: named in the recipe, added in training only, and logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoeq.errors import RecipeError
from geoeq.files import read_log
from geoeq.models import load_checkpoint

#: A user's network with an auxiliary loss for small weights.
DECAYING = """
from geoeq.models import EGNN

class DecayingEGNN(EGNN):
    @property
    def auxiliary_losses(self):
        return {"size": lambda data: sum(weight.square().sum() for weight in self.parameters())}
"""


@pytest.fixture
def decaying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "decaying.py").write_text(DECAYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "model.class_path=decaying.DecayingEGNN"


def size(folder: Path) -> float:
    model, _ = load_checkpoint(folder, trust=True)
    return sum(float(weight.detach().square().sum()) for weight in model.parameters())


def test_an_auxiliary_loss_is_trained_by_its_weight_and_logged(train_small, decaying: str) -> None:
    settings = (decaying, "optimizer.lr=0.01", "epochs=3")
    without, _ = train_small(*settings, folder="without")
    asked, _ = train_small(*settings, "loss.auxiliary={size: 10.0}", folder="asked")
    nothing, _ = train_small(*settings, "loss.auxiliary={size: 0.0}", folder="nothing")
    assert size(asked) < 0.8 * size(without)
    assert size(nothing) == size(without)
    rows = read_log(asked / "log.csv")
    assert rows[2]["train auxiliary size"] < rows[0]["train auxiliary size"]
    assert "valid auxiliary size" not in rows[0]
    plain = read_log(without / "log.csv")
    assert "train auxiliary size" not in plain[0]
    same = read_log(nothing / "log.csv")
    assert [row["train loss"] for row in same] == [row["train loss"] for row in plain]


def test_unknown_and_negative_auxiliary_losses_are_refused(train_small, decaying: str) -> None:
    with pytest.raises(RecipeError, match=r"small.yaml: loss: .*'sise'\. Did you mean 'size'"):
        train_small(decaying, "loss.auxiliary={sise: 1.0}")
    with pytest.raises(RecipeError, match=r"'size'.*Known: none"):
        train_small("loss.auxiliary={size: 1.0}")
    with pytest.raises(RecipeError, match=r"'auxiliary\.size' must be 0 or more"):
        train_small(decaying, "loss.auxiliary={size: -1.0}")
