"""What an evaluation refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoeq.data.card import names
from geoeq.errors import DataError
from geoeq.resources import share
from geoeq.training.evaluation.evaluate import trained_on


def test_a_card_with_code_outside_geoeq_needs_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "qm7" in names()
    card = (share("datasets") / "qm7" / "card.yaml").read_text().replace("geoeq.data.qm7.QM7Reader", "stranger.Reader")
    (tmp_path / "card.yaml").write_text(card)
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    meta = {"data": {"name": str(tmp_path), "sample": False}, "targets": ["atomization_energy"]}
    with pytest.raises(DataError, match=r"'stranger\.Reader' is not part of geoeq.*--trust"):
        trained_on(tmp_path, meta)
    with pytest.raises(DataError, match=r"'stranger' cannot be imported: .*imported"):
        trained_on(tmp_path, meta, trust=True)
