"""Sampling from the texts of a command line, and seeds that depend on what a start is."""

from __future__ import annotations

import pytest

from geoeq.errors import InputError
from geoeq.factory import MD, Modes, Rattle, Settings
from geoeq.factory.settings import seed_of


def test_quantities_are_read_with_their_units() -> None:
    assert MD.parse("300K:50") == MD(300.0, 50, 20.0)
    assert MD.parse("300K:50:0.04ps").interval == pytest.approx(40.0)
    assert Rattle.parse("0.005nm:20") == Rattle(pytest.approx(0.05), 20)
    assert Modes.parse("1000K:3") == Modes(1000.0, 3)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (MD, "300K", "write it as in --md 300K:50"),
        (MD, "300:50", "has no unit"),
        (MD, "300Å:50", "measure different quantities"),
        (MD, "300K:many", "positive integer, not 'many'"),
        (Rattle, "-0.1Å:3", "more than 0"),
        (Rattle, "0.1Å:0", "positive integer"),
        (Modes, "300K:3:4", "write it as in --modes 300K:20"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind: type[MD | Rattle | Modes], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind.parse(text)


def test_settings_go_through_text() -> None:
    settings = Settings("gfn2", {"accuracy": 0.01}, md=MD(300.0, 5), modes=Modes(100.0, 2), relax=True, seed=7)
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(("name", "value"), [("conformers", 0), ("max_force", 0.0)])
def test_settings_are_checked(name: str, value: float) -> None:
    with pytest.raises(InputError, match=str(value)):
        Settings("emt", **{name: value})  # type: ignore[arg-type]


def test_a_seed_depends_on_each_text() -> None:
    """A published set must be made again by a later version: the numbers are part of the contract."""
    assert seed_of(0, "md", "CCO", 1) == 915810747
    assert (
        len({seed_of(0, "md", "C", 1), seed_of(0, "md", "C", 2), seed_of(1, "md", "C", 1), seed_of(0, "mdC", 1)}) == 4
    )
