"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from geoeq.training.recipe import ScheduleSettings
from geoeq.training.schedule import Schedule


def test_cosine_rises_then_falls_to_its_minimum() -> None:
    schedule = Schedule(ScheduleSettings("cosine", warmup_epochs=2, minimum=0.1), steps_per_epoch=10, total_steps=120)
    rates = [schedule.factor(step) for step in range(121)]
    assert rates[0] == pytest.approx(1 / 21)
    assert rates[20] == 1.0
    assert rates[70] == pytest.approx(0.55)  # half way between 1 and 0.1
    assert rates[120] == pytest.approx(0.1)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_constant_is_constant() -> None:
    schedule = Schedule(ScheduleSettings("constant"), steps_per_epoch=10, total_steps=100)
    assert {schedule.factor(step) for step in range(100)} == {1.0}


def test_plateau_falls_only_without_progress() -> None:
    schedule = Schedule(ScheduleSettings("plateau", patience=2, factor=0.5), steps_per_epoch=1, total_steps=100)
    factors = []
    for loss in [5.0, 4.0, 4.5, 3.0, 3.0, 3.0, 3.1, 3.2]:
        schedule.validated(loss)
        factors.append(schedule.factor(50))
    assert factors == [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25]


def test_plateau_goes_on_from_its_state() -> None:
    settings = ScheduleSettings("plateau", patience=2)
    whole, first, second = (Schedule(settings, 1, 100) for _ in range(3))
    losses = [3.0, 3.0, 3.0, 2.0, 2.0, 2.0]
    for loss in losses:
        whole.validated(loss)
    for loss in losses[:2]:
        first.validated(loss)
    second.restore(first.state())
    for loss in losses[2:]:
        second.validated(loss)
    assert second.state() == whole.state()
    assert second.factor(9) == 0.25
