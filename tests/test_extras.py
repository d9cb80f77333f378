"""A missing extra is named with the command that installs it; the table agrees with pyproject.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from geoeq.errors import MissingExtraError
from geoeq.resources import EXTRAS, import_extra, missing

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
        MissingExtraError, match=r"'no_such_package', which is not installed.*pip install 'geoeq\[chem\]'"
    ):
        import_extra("no_such_package.inner", "chem")


def test_missing_lists_what_cannot_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "chem", ("json", "no_such_package"))
    assert missing("chem") == ["no_such_package"]


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_table_is_that_of_pyproject(extra: str, checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"][extra]]
    brought = {re.split(r"[\[<>=! ]", line)[0] for line in lines}
    assert {PACKAGES.get(module, module) for module in EXTRAS[extra]} <= brought


def test_every_dependency_has_a_pinned_version(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    lines = [line for extra in project["optional-dependencies"].values() for line in extra] + project["dependencies"]
    wanted = {re.split(r"[\[<>=! ]", line)[0].lower() for line in lines} - {"geoeq"}
    pinned = {line.partition("==")[0] for line in (checkout / "constraints.txt").read_text().splitlines()}
    assert wanted <= pinned
