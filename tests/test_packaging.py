"""The wheel and the sdist are complete, and the wheel works without a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import geoeq

ROOT = Path(__file__).resolve().parent.parent

#: Environment of the commands: settings under which the tests themselves run are removed.
SETTINGS = ("PYTHON", "PYTEST", "GEOEQ", "COV")
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}


def run(*command: str | Path, cwd: Path) -> str:
    environment = ENVIRONMENT | {"GEOEQ_CACHE": str(cwd / "cache")}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


def files_below(*folders: str) -> list[str]:
    """The tracked or untracked files of the checkout that are not generated, by their path in it."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return [path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts]


def test_the_wheel_holds_package_cards_samples_and_recipes(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "geoeq/py.typed" in names
    assert set(files_below("geoeq")) <= names
    shared = files_below("datasets", "potentials", "recipes")
    assert {f"geoeq/_share/{name}" for name in shared} <= names
    assert any(re.fullmatch(r"datasets/\w+/card\.yaml", name) for name in shared)
    assert any(re.fullmatch(r"datasets/\w+/sample/.+", name) for name in shared)
    assert any(re.fullmatch(r"potentials/[\w-]+/card\.yaml", name) for name in shared)
    assert any(re.fullmatch(r"recipes/\w+/.+\.yaml", name) for name in shared)


def test_the_wheel_adds_one_name_to_an_environment(dist: Path) -> None:
    """A top-level `datasets` would hide Hugging Face's package; `tests` or `docs` would hide others'."""
    (wheel,) = dist.glob("*.whl")
    assert {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()} == {
        "geoeq",
        f"geoeq_torch-{geoeq.__version__}.dist-info",
    }


def test_the_sdist_holds_the_sources(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "constraints.txt", "Makefile"}
    assert wanted | set(files_below("geoeq", "datasets", "potentials", "recipes")) <= names


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a new environment with the wheel; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = dist.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # A plain path: .pth files in it, such as that of an editable installation of the checkout, are not processed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv" / "bin"


@pytest.mark.slow
def test_doctor_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    report = run(installed / "geoeq", "doctor", cwd=tmp_path)
    assert str(installed.parent) in report
    assert str(ROOT) not in report.replace(str(Path(sys.prefix)), "")
    assert re.search(r"datasets .*_share.*qm7", report)


@pytest.mark.slow
def test_a_sample_is_read_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    assert "QM7" in run(installed / "geoeq", "data", "info", "qm7", cwd=tmp_path).upper()
    program = (
        "import geoeq, geoeq.data as data; dataset = data.load('qm9', sample=True);"
        "print(len(dataset), dataset[0].pos.shape[1], geoeq.__file__)"
    )
    length, width, where = run(installed / "python", "-c", program, cwd=tmp_path).split(maxsplit=2)
    assert int(length) > 0
    assert int(width) == 3
    assert str(installed.parent) in where
