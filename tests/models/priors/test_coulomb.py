"""Charges: pairs as a sum by NumPy, crystals by their Madelung constants, and derivatives as finite differences."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq.errors import CellError, FieldError, InputError, MissingExtraError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import EGNN, Coulomb, Forces, GraphScalar, NodeScalar, WithPriors
from geoeq.models.priors import coulomb
from geoeq.resources import missing
from geoeq.symmetry import report
from geoeq.units import conversion

STRENGTH = conversion("Ha*a0", "eV*Å")


def charged(prior, **options):
    """A network with charges, and nothing else in its energy."""
    torch.manual_seed(0)
    heads = [GraphScalar("energy", atomic=True), NodeScalar("charges", conserve=True)]
    model = EGNN(heads, width=8, layers=1, cutoff=4.0).double()
    for name, parameter in model.named_parameters():
        torch.nn.init.zeros_(parameter) if name.startswith("heads.0") else torch.nn.init.normal_(parameter, std=0.5)
    return Forces(WithPriors(model, [prior]), **options)


def test_pairs_are_a_sum_over_all():
    data = random_batch((5, 1, 9, 2))
    data.total_charge = torch.tensor([1.0, 0.0, -2.0, 0.0], dtype=torch.float64)
    outputs = charged(Coulomb(width=0.7))(data)
    energies = []
    for graph in range(4):
        rows = data.batch == graph
        q, x = outputs["charges"][rows].detach().numpy(), data.pos[rows].numpy()
        pairs = [
            q[i] * q[j] * math.erf(r / 1.4) / r
            for i in range(len(q))
            for j in range(i)
            if (r := float(np.linalg.norm(x[i] - x[j])))
        ]
        energies.append(STRENGTH * sum(pairs))
        assert outputs["charges"][rows].sum().item() == pytest.approx(data.total_charge[graph].item(), abs=1e-12)
        assert outputs["atomic_energies"][rows].sum().item() == pytest.approx(energies[-1], rel=1e-10, abs=1e-12)
    torch.testing.assert_close(outputs["energy"].detach(), torch.tensor(energies, dtype=torch.float64))
    assert outputs["energy"].abs().max() > 1e-2


def test_two_ions_attract_as_coulomb_says():
    pos = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 20.0]], dtype=torch.float64)
    charges = torch.tensor([1.0, -1.0], dtype=torch.float64)
    energy = Coulomb()(Data(pos=pos), {"charges": charges}).sum().item()
    assert energy == pytest.approx(-14.3996 / 20.0, rel=1e-5)


def test_derivatives_of_molecules_are_finite_differences():
    found = report(charged(Coulomb()), random_batch((5, 2)), checks=["forces", "rotation", "batch invariance"])
    assert found.passed, found


def test_charges_learn_from_the_energy():
    model, data = charged(Coulomb()), random_batch((5, 3))
    gradient = torch.autograd.grad(model(data)["energy"].sum(), model.model.model.heads[1].network[0].weight)[0]
    assert gradient.abs().max() > 1e-3


def test_what_cannot_be_is_refused():
    with pytest.raises(FieldError, match=r"Coulomb needs charges.*NodeScalar"):
        WithPriors(EGNN([GraphScalar("energy")], width=4, layers=1), [Coulomb()])
    with pytest.raises(InputError, match=r"width is .*; it must be a positive, finite number"):
        Coulomb(width=0.0)
    with pytest.raises(InputError, match="method of periodic charges"):
        Coulomb(method="fmm")
    data = random_batch((3,), periodic=True)
    data.pbc = torch.tensor([[True, False, False]])
    with pytest.raises(CellError, match="periodic in only one direction"):
        Coulomb()(data, {"charges": torch.zeros(3).double()})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchpme", None)
    coulomb._torchpme.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install .*\[electrostatics\]"):
        Coulomb()(random_batch((2,), periodic=True), {"charges": torch.zeros(2).double()})


class TestPeriodic:
    """What needs torch-pme."""

    @pytest.fixture(autouse=True)
    def library(self):
        if missing("electrostatics"):
            pytest.skip("needs the extra electrostatics")

    @pytest.mark.parametrize(
        ("structure", "a", "distance", "madelung"),
        [
            ("rocksalt", 5.64, 5.64 / 2, 1.747564594633),
            ("cesiumchloride", 4.12, 4.12 * 3**0.5 / 2, 1.762674773070),
            ("zincblende", 5.41, 5.41 * 3**0.5 / 4, 1.638055053388),
        ],
    )
    def test_crystals_have_their_madelung_constants(self, structure, a, distance, madelung):
        from ase.build import bulk

        atoms = bulk("NaCl", structure, a=a)
        data = Data(pos=torch.tensor(atoms.positions), cell=torch.tensor(atoms.cell.array)[None])
        data.pbc = torch.ones(1, 3, dtype=torch.bool)
        charges = torch.tensor([1.0, -1.0], dtype=torch.float64)
        energy = Coulomb(width=0.2)(data, {"charges": charges}).sum().item()  # Gaussians do not overlap
        assert -energy * distance / STRENGTH == pytest.approx(madelung, rel=1e-9)

    def test_a_batch_of_open_and_periodic_ones_is_one_by_one(self):
        data = random_batch((5, 1, 4), periodic=True)
        data.pbc[1:2] = False
        data.pbc[2, 2] = False
        data.cell[2, 2] = torch.tensor([0.0, 0.0, 30.0])
        model = charged(Coulomb(), stress=False)
        together = model(data)
        for graph in range(3):
            alone = model(Batch.from_data_list([data[graph]]))
            torch.testing.assert_close(alone["energy"][0], together["energy"][graph])
            torch.testing.assert_close(alone["forces"], together["forces"][data.batch == graph])

    def test_forces_and_stress_are_finite_differences(self):
        data = random_batch((4, 3), periodic=True)
        found = report(charged(Coulomb(1.2), stress=True), data, checks=["forces", "stress"])
        assert found.passed, found

    def test_a_mesh_gives_the_exact_sum(self):
        data = random_batch((9, 6), periodic=True)
        exact, mesh = (charged(Coulomb(1.0, method), stress=True)(data) for method in ("ewald", "pme"))
        for name in ("energy", "forces", "stress"):
            size = exact[name].abs().max().item()
            torch.testing.assert_close(mesh[name], exact[name], rtol=0, atol=1e-6 * size)

    def test_a_large_cell_is_open_space(self):
        """Charges without a dipole: opposite ones on a square."""
        pos = torch.tensor([[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]], dtype=torch.float64)
        charges = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
        data = Data(pos=pos)
        alone = Coulomb(1.0)(data, {"charges": charges})
        data.cell, data.pbc = 40 * torch.eye(3).double()[None], torch.ones(1, 3, dtype=torch.bool)
        among_images = Coulomb(1.0, "pme")(data, {"charges": charges})
        assert among_images.sum().item() == pytest.approx(alone.sum().item(), abs=1e-4)  # of quadrupoles

    def test_slabs_do_not_feel_their_images(self):
        """Two sheets of opposite charge have a constant energy in the vacuum, however much of it there is."""
        pos = torch.tensor([[0, 0, 0], [0, 0, 3.0]], dtype=torch.float64)
        charges = torch.tensor([1.0, -1.0], dtype=torch.float64)
        energies = []
        for vacuum in (25.0, 40.0):
            cell = torch.diag(torch.tensor([4.0, 4.0, vacuum])).double()[None]
            data = Data(pos=pos, cell=cell, pbc=torch.tensor([[True, True, False]]))
            energies.append(Coulomb(1.0)(data, {"charges": charges}).sum().item())
        assert energies[1] == pytest.approx(energies[0], abs=1e-6)
