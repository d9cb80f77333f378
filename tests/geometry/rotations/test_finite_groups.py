"""Point groups are groups, of the order that they have in every table."""

from __future__ import annotations

import pytest
import torch

from geoeq.errors import InputError
from geoeq.geometry.groups import random_element, symmetries_of, turns_of
from geoeq.geometry.rotations import finite_group, is_finite_group
from geoeq.symmetry import random_batch

EXACT = "donot_use_mm_for_euclid_dist"

#: name -> elements, of which rotations.
ORDERS = {
    "C1": (1, 1), "C2": (2, 2), "C5": (5, 5), "C2h": (4, 2), "C3h": (6, 3), "C3v": (6, 3), "C6v": (12, 6),
    "Ci": (2, 1), "Cs": (2, 1), "S2": (2, 1), "S4": (4, 2), "S6": (6, 3),
    "D2": (4, 4), "D3": (6, 6), "D2h": (8, 4), "D3h": (12, 6), "D2d": (8, 4), "D3d": (12, 6),
    "T": (12, 12), "Td": (24, 12), "Th": (24, 12), "O": (24, 24), "Oh": (48, 24), "I": (60, 60), "Ih": (120, 60),
    "C64": (64, 64),
}  # fmt: skip


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("name", ORDERS)
def test_a_point_group_is_a_group(name, axis):
    elements = finite_group(name, axis)
    assert elements.dtype == torch.float64
    assert (len(elements), int((elements.det() > 0).sum())) == ORDERS[name]
    assert torch.equal(elements[0], torch.eye(3, dtype=torch.float64))
    identity = torch.eye(3, dtype=torch.float64).expand_as(elements)
    torch.testing.assert_close(elements @ elements.mT, identity, rtol=0, atol=1e-14)
    flat = elements.flatten(1)
    assert torch.cdist(flat, flat).fill_diagonal_(9).min() > 0.09  # all are different; of C64 neighbours least
    products = (elements.unsqueeze(1) @ elements).flatten(0, 1).flatten(1)
    assert torch.cdist(products, flat, compute_mode=EXACT).amin(1).max() < 1e-13


def test_the_axis_stays():
    for number, axis in enumerate("xyz"):
        unit = torch.eye(3, dtype=torch.float64)[number]
        for element in finite_group("C5", axis):
            torch.testing.assert_close(element @ unit, unit)
        assert any((element @ unit + unit).norm() < 1e-12 for element in finite_group("D5", axis))


def test_the_inversion_is_where_it_belongs():
    inversion = -torch.eye(3, dtype=torch.float64)
    for names, has in (
        (("Ci", "Th", "Oh", "Ih", "D3d", "S6", "C4h"), True),
        (("Td", "D3h", "C3h", "C4v", "S4"), False),
    ):
        for name in names:
            assert bool(((finite_group(name) - inversion).abs().amax((1, 2)) < 1e-9).any()) == has


@pytest.mark.parametrize("name", ["", "X", "C", "C0", "C65", "D3v", "C4d", "S3", "Od", "T4", "O(3)", "E(3)", "1", "c4"])
def test_other_names_are_refused(name):
    assert not is_finite_group(name)
    with pytest.raises(InputError, match=f"No point group is called '{name.replace('(', '.').replace(')', '.')}'"):
        finite_group(name)


def test_an_unknown_axis_is_refused():
    with pytest.raises(InputError, match="axis is 'a'"):
        finite_group("C2", "a")


def test_random_elements_are_of_the_group():
    class Claims:
        group, axis = "D3d", "x"

    turns, batch = turns_of(Claims()), random_batch((3,))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(turns, finite_group("D3d", "x"))
    for symmetry, sign in (("rotation", 1), ("reflection", -1)):
        drawn = torch.stack([random_element(symmetry, batch, generator, turns).rotation for _ in range(200)])
        places = torch.cdist(drawn.flatten(1), turns.flatten(1), compute_mode=EXACT)
        assert places.amin(1).max() < 1e-12
        assert set(places.argmin(1).tolist()) == {n for n in range(1, 12) if turns[n].det().round() == sign}


def test_symmetries_of_point_groups():
    assert symmetries_of("O") == ("rotation", "translation", "permutation", "batch")
    assert symmetries_of("Oh") == symmetries_of("E(3)")
    assert symmetries_of("Ci") == ("reflection", "translation", "permutation", "batch")
    assert symmetries_of("C1") == symmetries_of("T(3)")
    assert symmetries_of("1") == ("permutation", "batch")
