"""Which structures are chosen, and limits in words."""

from __future__ import annotations

import numpy as np
import pytest

from geoeq.errors import InputError
from geoeq.simulate.md.uncertainty_rule import uncertainty_rule
from geoeq.uncertainty import select


def test_the_farthest_of_the_uncertain_ones():
    features = np.array([[0.0], [0.1], [1.0], [0.55], [50.0]])
    uncertainty = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    assert select(uncertainty, features, 3, pool=4).tolist() == [0, 2, 3]
    assert select(uncertainty, features, 2, pool=5).tolist() == [0, 4]
    assert sorted(select(uncertainty, np.zeros((5, 2)), 5, pool=9).tolist()) == [0, 1, 2, 3, 4]


def test_scales_of_features_do_not_count():
    rng = np.random.default_rng(0)
    features, uncertainty = rng.standard_normal((40, 3)), rng.random(40)
    chosen = select(uncertainty, features, 8, pool=20)
    assert select(uncertainty, features * [1e-4, 1.0, 1e5], 8, pool=20).tolist() == chosen.tolist()


def test_numbers_that_cannot_be():
    with pytest.raises(InputError, match="3 structures cannot be selected from the 2 most uncertain"):
        select(np.ones(5), np.ones((5, 1)), 3, pool=2)
    with pytest.raises(InputError, match="The uncertainty of structure 1 is not finite"):
        select(np.array([1.0, np.nan]), np.ones((2, 1)), 1, pool=2)


RESULTS = {
    "energy_uncertainty": 0.2,
    "forces": np.zeros((4, 3)),
    "forces_uncertainty": np.array([0.1, 0.3, 0.2, 0.0]),
}


@pytest.mark.parametrize("limit", ["0.049eV/atom", "49 meV / atom", "0.19eV", "0.29eV/Å", "4.5kcal/mol", "290meV/Å"])
def test_a_limit_that_is_passed(limit):
    assert limit in str(uncertainty_rule(limit)(RESULTS))


@pytest.mark.parametrize("limit", ["0.051eV/atom", "0.21eV", "0.31eV/Å", "4.7kcal/mol"])
def test_a_limit_that_is_kept(limit):
    assert uncertainty_rule(limit)(RESULTS) is None


def test_the_atom_is_named():
    assert uncertainty_rule("0.1eV/Å")(RESULTS) == ("the uncertainty of the force on atom 1 is 0.3 eV/Å, above 0.1eV/Å")


@pytest.mark.parametrize("limit", ["0.05", "5K", "-1eV", "0eV/atom", "1eV/Å/atom", "eV", "nan eV"])
def test_no_limit(limit):
    with pytest.raises(InputError, match="An uncertainty limit is a positive number with its unit"):
        uncertainty_rule(limit)


def test_a_model_that_does_not_know():
    with pytest.raises(InputError, match="Add one with geoeq calibrate"):
        uncertainty_rule("1eV")({"energy": 0.0, "forces": np.zeros((1, 3))})
