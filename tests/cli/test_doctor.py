"""geoeq doctor reports what is available, for what is missing why and what to do, and packages that shadow ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import geoeq
from geoeq import kernels
from geoeq.cli.doctor import doctor_lines
from geoeq.kernels import BackendStatus
from geoeq.resources import EXTRAS, install_command


def row(lines: list[str], name: str) -> str:
    rows = [line.strip().removeprefix(name).strip() for line in lines if line.startswith(f"  {name}  ")]
    assert len(rows) == 1, f"{name} in {lines}"
    return rows[0]


def add_distribution(folder: Path, entry_point: str, summary: str) -> None:
    """Install the metadata of a distribution ``geoeq`` into a folder."""
    info = folder / "geoeq-0.1.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: geoeq\nVersion: 0.1.3\nSummary: {summary}\n")
    (info / "entry_points.txt").write_text(f"[console_scripts]\ngeoeq = {entry_point}\n")


def test_versions_and_devices_are_named() -> None:
    lines = doctor_lines()
    assert row(lines, "geoeq") == geoeq.__version__
    assert row(lines, "torch") == torch.__version__
    assert f"torch uses {torch.get_num_threads()} thread" in row(lines, "CPU")


def test_every_backend_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "report", lambda: [BackendStatus("reference", None), BackendStatus("cpu", "no C++")])
    lines = doctor_lines()
    assert row(lines, "reference") == "available"
    assert row(lines, "cpu") == "not available: no C++"


def test_a_backend_and_its_extra_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "report", lambda: [BackendStatus("torch_scatter", "it does not load")])
    monkeypatch.setitem(EXTRAS, "scatter", ("json",))
    lines = doctor_lines()
    assert row(lines, "torch_scatter") == "not available: it does not load"
    assert row(lines, "scatter") == "installed, but cannot be used here: see the backend torch_scatter"
    monkeypatch.setitem(EXTRAS, "scatter", ("no_such_package",))
    lines = doctor_lines()
    assert row(lines, "torch_scatter") == "not available: the extra 'scatter' is not installed"
    assert row(lines, "scatter").startswith("not installed (no_such_package missing); install with: ")


def test_a_missing_extra_has_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "chem", ("json", "no_such_package"))
    monkeypatch.setitem(EXTRAS, "lmdb", ("json",))
    lines = doctor_lines()
    remedy = install_command("chem")
    assert row(lines, "chem") == f"not installed (no_such_package missing); install with: {remedy}"
    assert row(lines, "lmdb") == "installed"


def test_folders_are_found(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    lines = doctor_lines()
    assert row(lines, "datasets").startswith(f"{checkout / 'datasets'} (")
    assert row(lines, "cache") == f"{tmp_path / 'cache'} (created when first needed)"
    (tmp_path / "cache").mkdir()
    assert row(doctor_lines(), "cache") == str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("entry_point", "expected"),
    [
        ("geoeq.core.app:main", "an unrelated project of the package index (Soil mechanics)"),
        ("geoeq.cli.main:main", "an earlier installation of this project, which is now distributed as 'geoeq-torch'"),
    ],
)
def test_another_distribution_is_reported(
    entry_point: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_distribution(tmp_path, entry_point, "Soil mechanics")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    conflict = row(doctor_lines(), "distribution")
    assert expected in conflict
    assert "pip uninstall geoeq geoeq-torch" in conflict


def test_another_package_on_the_import_path_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "geoeq").mkdir()
    (tmp_path / "geoeq" / "__init__.py").touch()
    here = Path(geoeq.__file__).parent
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(here.parent)])
    assert row(doctor_lines(), "import path") == (
        f"'{tmp_path / 'geoeq'}' is another package 'geoeq'; this command runs '{here}'."
    )
    monkeypatch.setattr(sys, "path", [str(here.parent)])
    assert "Conflicts" not in doctor_lines()
