"""A missing extra is named with a command that installs it; the table agrees with pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from geoeq import resources
from geoeq.errors import MissingExtraError
from geoeq.resources import DISTRIBUTION, EXTRAS, import_extra, install_command, missing

#: module -> the package that brings it, where the names differ.
PACKAGES = {
    "yaml": "PyYAML",
    "torch_scatter": "torch-scatter",
    "cuequivariance_torch": "cuequivariance-torch",
    "torch_sim": "torch-sim-atomistic",
    "metatomic": "metatomic-torch",
    "torch_dftd": "torch-dftd",
    "torchpme": "torch-pme",
}


def test_import_extra_returns_the_module() -> None:
    assert import_extra("json", "train") is sys.modules["json"]


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingExtraError, match=r"'no_such_package', which is not installed.*pip install -e '.*\[chem\]'"
    ):
        import_extra("no_such_package.inner", "chem")


def test_missing_lists_what_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "chem", ("json", "no_such_package"))
    assert missing("chem") == ["no_such_package"]


def test_a_checkout_is_installed_with_its_extra(checkout: Path) -> None:
    words = shlex.split(install_command("chem"))
    assert words[-3:] == ["install", "-e", f"{checkout}[chem]"]


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installation from a wheel: no checkout beside the package, and metadata with the requirements."""
    lines = [
        "torch>=2.11",
        "rdkit>=2024.3.5; extra == 'chem'",
        'dask>=2024.8; extra == "dask"',
        "distributed>=2024.8; extra == 'dask'",
        "triton>=3.5; (platform_system == 'Linux') and extra == 'triton'",
    ]
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "geoeq")
    monkeypatch.setattr(importlib.metadata, "requires", {DISTRIBUTION: lines}.__getitem__)


@pytest.mark.parametrize(
    ("extra", "packages"),
    [("chem", ["rdkit>=2024.3.5"]), ("dask", ["dask>=2024.8", "distributed>=2024.8"]), ("triton", ["triton>=3.5"])],
)
@pytest.mark.usefixtures("wheel")
def test_a_wheel_names_the_packages_themselves(extra: str, packages: list[str]) -> None:
    """No index has the wheel, so that its name is of no use to pip."""
    words = shlex.split(install_command(extra))
    assert words[words.index("install") + 1 :] == packages


def test_pip_is_that_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", str(folder))
    assert install_command("chem").startswith("pip install ")
    monkeypatch.setenv("PATH", "/nowhere")
    assert shlex.split(install_command("chem"))[:3] == [sys.executable, "-m", "pip"]


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_table_is_that_of_pyproject(extra: str, checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"][extra]]
    brought = {re.split(r"[\[<>=! ]", line)[0] for line in lines}
    assert {PACKAGES.get(module, module) for module in EXTRAS[extra]} <= brought


def test_every_dependency_has_a_pinned_version(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    lines = [line for extra in project["optional-dependencies"].values() for line in extra] + project["dependencies"]
    wanted = {re.split(r"[\[<>=! ]", line)[0].lower() for line in lines} - {"geoeq-torch"}
    pinned = {line.partition("==")[0] for line in (checkout / "constraints.txt").read_text().splitlines()}
    assert wanted <= pinned
