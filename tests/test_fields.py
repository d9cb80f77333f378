"""The table of fields is consistent in itself and with ASE and e3nn."""

from __future__ import annotations

import pytest
from e3nn.o3 import Irreps

from geoeq.errors import FieldError
from geoeq.fields import FIELDS, field


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_irreps_are_e3nn_notation(name: str) -> None:
    assert Irreps(FIELDS[name].irreps).dim > 0


def test_names_are_attributes() -> None:
    reserved = {"z", "pos", "cell", "pbc", "batch", "ptr", "vel", "charge", "x", "y", "index", "edge_index"}
    assert all(name.isidentifier() for name in FIELDS)
    assert not reserved & set(FIELDS)


def test_forces_are_energy_per_length() -> None:
    assert field("forces").unit == f"{field('energy').unit}/{field('positions').unit}"
    assert field("stress").unit == f"{field('energy').unit}/{field('positions').unit}^3"


def test_only_scalars_of_graphs_are_extensive() -> None:
    """A head sums what is extensive over the atoms: that has a meaning for scalars of a graph only."""
    extensive = [entry for entry in FIELDS.values() if entry.extensive]
    assert extensive
    assert all(entry.level == "graph" and entry.irreps == "0e" for entry in extensive)


def test_a_misspelt_field_is_named_with_the_closest() -> None:
    with pytest.raises(FieldError, match=r"No field is called 'gapp'\. Did you mean 'gap'\? Known: .*dipole"):
        field("gapp")
