"""D3 by torch-dftd: the same numbers as from its own calculator, for atoms, batches and cells, with all derivatives."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq.errors import InputError, UnknownElementError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import EGNN, Dispersion, Forces, GraphScalar, WithPriors
from geoeq.symmetry import report

pytest.importorskip("torch_dftd", reason="needs the extra dispersion")


def model(prior):
    torch.manual_seed(0)
    inside = EGNN([GraphScalar("energy", atomic=True)], width=8, layers=1, cutoff=4.0).double()
    for parameter in inside.heads.parameters():
        torch.nn.init.zeros_(parameter)
    return Forces(WithPriors(inside, [prior]), stress=True)


def theirs(data, damping, functional, cutoff):
    """Energy, forces and stress of the calculator that comes with torch-dftd."""
    from ase import Atoms
    from ase.stress import voigt_6_to_full_3x3_stress
    from torch_dftd.torch_dftd3_calculator import TorchDFTD3Calculator

    cell = {"cell": data.cell[0].numpy(), "pbc": True} if "cell" in data else {}
    atoms = Atoms(data.z.numpy(), data.pos.numpy(), **cell)
    atoms.calc = TorchDFTD3Calculator(
        atoms=atoms,
        damping=damping,
        xc=functional,
        cutoff=cutoff,
        cnthr=cutoff,
        dtype=torch.float64,
        cutoff_smoothing="poly",
    )
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if cell:
        found["stress"] = voigt_6_to_full_3x3_stress(atoms.get_stress())
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in found.items()}


@pytest.mark.filterwarnings("ignore:Creating a tensor from a list")  # theirs
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(
    ("functional", "damping"), [("pbe", "bj"), ("b3-lyp", "zero"), ("pbe0", "bjm"), ("pbe", "zerom")]
)
def test_a_batch_is_what_their_calculator_gives_one_by_one(functional, damping, periodic):
    cutoff = 8.0
    data = random_batch((5, 1, 7), periodic=periodic)
    outputs = model(Dispersion(functional, damping, cutoff, cutoff))(data)
    for graph in range(3):
        expected = theirs(data[graph], damping, functional, cutoff)
        rows = data.batch == graph
        close = {"rtol": 2e-5, "atol": 2e-7}  # of their Bohr radius
        torch.testing.assert_close(outputs["energy"][graph], expected["energy"], **close)
        torch.testing.assert_close(outputs["atomic_energies"][rows].sum(), expected["energy"], **close)
        torch.testing.assert_close(outputs["forces"][rows], expected["forces"], **close)
        if periodic:
            torch.testing.assert_close(outputs["stress"][graph], expected["stress"], **close)
    assert outputs["energy"].abs().max() > 0.05


@pytest.mark.parametrize("periodic", [False, True])
def test_derivatives_are_finite_differences(periodic):
    data = random_batch((4, 3), periodic=periodic)
    found = report(model(Dispersion("pbe", "bj", 7.0, 7.0)), data, checks=["forces", "stress", "rotation"])
    assert found.passed, found


def test_second_derivatives_exist():
    """To train with forces: the square of forces has a gradient by positions, as finite differences give it."""
    data = random_batch((4,))
    potential = model(Dispersion("pbe", "bj", 9.0, 9.0))
    pos = data.pos.clone().requires_grad_()

    def forces(pos):
        moved = data.clone()
        moved.pos = pos
        return potential(moved)["forces"]

    assert torch.autograd.gradcheck(forces, (pos,), atol=1e-7, rtol=1e-4)


def test_argon_is_bound_by_its_published_coefficient():
    """Far apart two argon atoms attract with -s6 C6 / r^6; D3 gives C6 = 64.65 in atomic units (Grimme et al. 2010)."""
    from ase.units import Bohr, Hartree

    distance = 30.0
    pos = torch.tensor([[0.0, 0.0, 0.0], [distance * Bohr, 0.0, 0.0]], dtype=torch.float64)
    data = Batch.from_data_list([Data(z=torch.tensor([18, 18]), pos=pos)])
    energy = model(Dispersion("pbe", "zero", cutoff=40.0))(data)["energy"].item()
    sixth = -energy / Hartree * distance**6
    assert sixth == pytest.approx(64.65, rel=0.05)  # the eighth power adds some percent


def test_ends_smoothly():
    def energy(distance):
        pos = torch.tensor([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]], dtype=torch.float64)
        return Dispersion("pbe", cutoff=6.0, coordination_cutoff=6.0)(Data(z=torch.tensor([6, 6]), pos=pos), {}).sum()

    assert energy(6.0) == 0
    assert -energy(5.999) < 1e-7 * -energy(5.0)
    assert energy(5.9) < 0


def test_an_atom_alone_has_none():
    data = random_batch((1,))
    outputs = model(Dispersion("pbe"))(data)
    assert outputs["energy"].item() == 0
    assert not outputs["forces"].any()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"no D3 constants for the functional 'pbee' with damping 'bj'"):
        Dispersion("pbee")
    with pytest.raises(InputError, match="damping"):
        Dispersion("pbe", "becke")
    with pytest.raises(InputError, match="must not exceed the cutoff"):
        Dispersion("pbe", cutoff=5.0)
    data = Data(z=torch.tensor([95]), pos=torch.zeros(1, 3, dtype=torch.float64))
    with pytest.raises(UnknownElementError, match="Atomic number 95: D3 has coefficients up to 94"):
        Dispersion("pbe")(data, {})
