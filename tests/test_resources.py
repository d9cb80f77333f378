"""Cards and recipes are found in a checkout and in a wheel, and the error says where they were looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from geoeq import resources
from geoeq.errors import GeoeqError


@pytest.mark.parametrize("kind", ["datasets", "potentials", "recipes"])
def test_the_checkout_is_found(kind: str, checkout: Path) -> None:
    assert resources.share(kind) == checkout / kind


def test_a_path_below_need_not_exist(checkout: Path) -> None:
    assert resources.resource("datasets", "foo", "card.yaml") == checkout / "datasets" / "foo" / "card.yaml"


def test_a_wheel_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "geoeq"
    (package / "_share" / "datasets").mkdir(parents=True)
    (tmp_path / "datasets").mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.share("datasets") == package / "_share" / "datasets"


def test_a_broken_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "geoeq")
    with pytest.raises(GeoeqError, match=r"The folder 'recipes' of geoeq is missing from .*Reinstall"):
        resources.share("recipes")
