"""`geoeq doctor` says what is there, and for what is missing why and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import geoeq
from geoeq import extras, kernels
from geoeq.cli.doctor import doctor_lines
from geoeq.kernels import BackendStatus


def row(lines: list[str], name: str) -> str:
    found = [line for line in lines if line.split()[:1] == [name]]
    assert len(found) == 1, f"{name} in {lines}"
    return found[0].split(maxsplit=1)[1]


def test_versions_and_devices_are_named() -> None:
    lines = doctor_lines()
    assert row(lines, "geoeq") == geoeq.__version__
    assert row(lines, "torch") == torch.__version__
    assert f"{torch.get_num_threads()} threads" in row(lines, "CPU")


def test_every_backend_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "report", lambda: [BackendStatus("reference", None), BackendStatus("cpu", "no C++")])
    lines = doctor_lines()
    assert row(lines, "reference") == "available"
    assert row(lines, "cpu") == "not available: no C++"


def test_a_missing_extra_has_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.EXTRAS, "chem", ("json", "no_such_package"))
    monkeypatch.setitem(extras.EXTRAS, "lmdb", ("json",))
    lines = doctor_lines()
    assert row(lines, "chem") == "lacks no_such_package; install with: pip install 'geoeq[chem]'"
    assert row(lines, "lmdb") == "installed"


def test_folders_are_found(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    lines = doctor_lines()
    assert row(lines, "datasets").startswith(f"{checkout / 'datasets'} (")
    assert row(lines, "cache") == f"{tmp_path / 'cache'} (made when first needed)"
    (tmp_path / "cache").mkdir()
    assert row(doctor_lines(), "cache") == str(tmp_path / "cache")
