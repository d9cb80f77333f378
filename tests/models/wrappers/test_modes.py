"""Forces in every mode of PyTorch: inference_mode, no_grad, torch.func and torch.compile; unknown ones are errors."""

from __future__ import annotations

import contextlib
import copy
from typing import ClassVar

import pytest
import torch
from ase.build import molecule
from rich.console import Console
from torch import nn
from torch_geometric.data import Batch, Data

import geoeq.models
from geoeq.data.structures import Structure
from geoeq.errors import InputError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import (
    EGNN,
    ESCN,
    Dipole,
    Ensemble,
    EquiformerV2,
    Forces,
    FrameAveraging,
    GraphScalar,
    Prior,
    TinvNN,
    WithPriors,
    hessian,
)
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.simulate import GeoeqCalculator
from geoeq.simulate.potential import as_potential
from geoeq.symmetry import report
from geoeq.training.evaluation.predict import predict_structures

#: Contexts in which forces are the same, and cannot be differentiated.
MODES = (torch.inference_mode, torch.no_grad)

FAMILIES = (*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS)


def network(name, **changes):
    """The example of a network with an energy alone, in float64."""
    cls = getattr(geoeq.models, name)
    cutoff = {} if name in geoeq.models.COORDINATE_NETWORKS else {"cutoff": 4.0}
    torch.manual_seed(0)
    model = cls(**(cls.example().arguments | {"heads": [GraphScalar("energy")]} | cutoff | changes)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def structures(**options):
    """A single atom, and two molecules or crystals."""
    return random_batch((1, 4, 3), dtype=torch.float64, **options)


def copied(data):
    """New tensors, which are those of inference mode within it."""
    return Batch.from_data_list([graph.clone() for graph in data.to_data_list()])


def same(found, right):
    assert set(found) == set(right)
    for name, value in right.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-12)


@pytest.fixture(params=FAMILIES)
def name(request):
    return request.param


@pytest.mark.parametrize("mode", MODES)
def test_every_network_has_the_same_forces_in_every_mode(name, mode):
    """The first call is in the mode, so that nothing cached there may spoil the derivatives outside."""
    periodic = name not in geoeq.models.COORDINATE_NETWORKS
    model, data = Forces(network(name), stress=True), structures(periodic=periodic)
    with mode():
        quiet, again = model(data), model(copied(data))
    right = model(data)
    assert right["forces"][1:].abs().max() > 1e-6
    assert right["forces"][0].abs().max() < 1e-12 * right["forces"].abs().max()  # of the atom that is alone
    assert ("stress" in right) == periodic
    same(quiet, right)
    same(again, right)
    assert not any(value.requires_grad for value in quiet.values())
    right["forces"].square().sum().backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("mode", [*MODES, contextlib.nullcontext])
def test_atoms_that_are_alone_have_no_forces(name, mode):
    model = Forces(network(name))
    with mode():
        forces = model(random_batch((1, 1), dtype=torch.float64))["forces"]
    assert torch.equal(forces, torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
def test_calculators_and_predictions_in_every_mode(name, mode, tmp_path):
    model, atoms = network(name), molecule("CH3OH")
    right = GeoeqCalculator(model).get_property("forces", atoms)
    save_checkpoint(Forces(model), tmp_path)
    assert abs(right).max() > 1e-6
    with mode():
        calculators = [GeoeqCalculator(model), GeoeqCalculator(tmp_path)]
        found = [calculator.get_property("forces", atoms) for calculator in calculators]
        loaded = load_checkpoint(tmp_path)[0]
        found += [predict_structures(loaded, [Structure(atoms, "here")], Console(quiet=True))[0]["forces"]]
    for forces in found:
        assert abs(forces - right).max() < 1e-12
    assert abs(calculators[0].get_hessian(atoms) - GeoeqCalculator(model).hessian(atoms)).max() < 1e-10


def test_hessians_and_checks_in_inference_mode():
    model, data = Forces(network("EGNN")), structures().to_data_list()[1]
    right = hessian(model, data)
    with torch.inference_mode():
        torch.testing.assert_close(hessian(model, data), right, rtol=0, atol=1e-12)
        found = report(network("EGNN"), checks=["derivatives"])
        assert [result.status for result in found.results] == ["passed"]
    assert torch.equal(hessian(model, random_batch((1,), dtype=torch.float64)), torch.zeros(1, 3, 1, 3).double())
    apart = Data(z=torch.tensor([1, 1]), pos=torch.tensor([[0.0, 0, 0], [9, 0, 0]], dtype=torch.float64))
    assert torch.equal(hessian(model, apart), torch.zeros(2, 3, 2, 3).double())


class Custom(nn.Module):
    """Somebody's potential, with a trained constant."""

    fields: ClassVar = {"energy": None}

    def __init__(self, energy):
        super().__init__()
        self.constant, self.energy = nn.Parameter(torch.ones((), dtype=torch.float64)), energy

    def forward(self, data):
        return {"energy": (self.constant * self.energy(data)).reshape(1)}


@pytest.mark.parametrize("mode", [*MODES, contextlib.nullcontext])
@pytest.mark.parametrize(
    "energy",
    [
        lambda data: data.pos.detach().square().sum(),
        lambda data: data.pos.new_tensor(data.pos.square().sum().item()),
        lambda data: data.z.sum(),
    ],
    ids=["detached", "numbers", "constant"],
)
def test_what_is_not_connected_to_the_positions_is_an_error(energy, mode):
    model, data = Forces(Custom(energy)), structures().to_data_list()[1]
    alone = random_batch((1,), dtype=torch.float64)
    with mode():
        with pytest.raises(InputError, match=r"connect 'energy' to the positions.*add 0 \* data.pos.sum\(\) to it"):
            model(data)
        assert torch.equal(model(alone)["forces"], torch.zeros(1, 3, dtype=torch.float64))
    constant = Forces(Custom(lambda data: data.z.sum() + 0 * data.pos.sum()))
    assert torch.equal(constant(data)["forces"], torch.zeros_like(data.pos))

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (data,))["forces"].sum()

    with pytest.raises(InputError, match="connect 'energy' to the positions"):
        torch.func.grad(loss)(dict(model.named_parameters()))


class Reference(Prior):
    @classmethod
    def example(cls):
        return cls()

    def forward(self, data, outputs):
        return data.z.double()


def test_priors_without_derivatives_are_an_error():
    data = structures()
    data.energy, data.forces = torch.ones(3, dtype=torch.float64), torch.zeros_like(data.pos)
    with pytest.raises(InputError, match="connect 'energy of the priors' to the positions"):
        WithPriors(network("EGNN"), [Reference()]).fit_heads(data)


def test_forces_that_are_no_function_have_no_hessian():
    class Frozen(nn.Module):
        fields: ClassVar = {"energy": None, "forces": None}

        def forward(self, data):
            return {"energy": data.pos.detach().sum().reshape(1), "forces": data.pos.detach()}

    with pytest.raises(InputError, match="connect 'forces' to the positions"):
        hessian(Frozen(), structures().to_data_list()[1])


def test_parameters_of_inference_mode_are_refused():
    with torch.inference_mode():
        model = network("EGNN")
        with pytest.raises(InputError, match=r"created within torch.inference_mode\(\)"):
            Forces(model)(structures())
        assert as_potential(model)(structures())["forces"].abs().max() > 0  # of a copy made outside


@pytest.mark.parametrize(
    ("cls", "changes"),
    [(ESCN, "detach_frames"), (EquiformerV2, "detach_frames"), (EGNN, "detach_norm")],
)
def test_networks_with_inexact_derivatives_are_refused(cls, changes):
    normalize = {"normalize": "length"} if cls is EGNN else {}
    published = network(cls.__name__, **normalize, **{changes: True})
    for model in (published, FrameAveraging(published), Ensemble([published, published])):
        with pytest.raises(InputError, match=f"{changes}=True"):
            Forces(model)
    Forces(network(cls.__name__, **normalize))


WRAPPED = {
    "FrameAveraging": lambda: FrameAveraging(network("FAENet")),
    "TinvNN": lambda: TinvNN.example().double(),
    "WithPriors": lambda: WithPriors.example().double(),
    "LastLayer": lambda: geoeq.models.LastLayer.example().double(),
}


@pytest.mark.parametrize("name", [*FAMILIES, *WRAPPED])
def test_transforms_of_functions(name):
    """Derivatives by positions and parameters, of energies and of a loss of forces, are those of autograd."""
    torch.manual_seed(0)
    model = WRAPPED[name]() if name in WRAPPED else network(name)
    data = random_batch((3, 2), dtype=torch.float64)

    def energies(pos):
        moved = copy.copy(data)
        moved.pos = pos
        return model(moved)["energy"]

    right = torch.autograd.functional.jacobian(energies, data.pos)
    torch.testing.assert_close(torch.func.jacrev(energies)(data.pos), right)
    torch.testing.assert_close(torch.func.grad(lambda pos: energies(pos).sum())(data.pos), right.sum(0))

    potential = Forces(model)
    parameters = {name: value for name, value in potential.named_parameters() if value.requires_grad}

    def loss(parameters):
        outputs = torch.func.functional_call(potential, parameters, (data,))
        return outputs["energy"].sum() + outputs["forces"].square().sum()

    found = torch.func.grad(loss)({name: value.detach() for name, value in parameters.items()})
    outputs = potential(data)
    total = outputs["energy"].sum() + outputs["forces"].square().sum()
    right = torch.autograd.grad(total, list(parameters.values()), materialize_grads=True)
    for value, expected in zip(found.values(), right, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-10)


def test_transforms_of_large_structures():
    """Their edges are found without cell lists, which cannot read tensors of a transform."""
    model, generator = network("EGNN", cutoff=3.0), torch.Generator().manual_seed(0)
    pos = 18 * torch.rand(600, 3, dtype=torch.float64, generator=generator)

    def energy(pos):
        return model(Data(z=torch.ones(600, dtype=torch.int64), pos=pos))["energy"].sum()

    found = torch.func.grad(energy)(pos)
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(energy, pos))


def test_a_stress_within_a_transform():
    potential, data = Forces(network("EGNN"), stress=True), structures(periodic=True)
    torch.testing.assert_close(
        torch.func.grad(lambda x: potential(rescaled(data, x))["stress"].square().sum())(torch.ones(()).double()),
        torch.autograd.functional.jacobian(
            lambda x: potential(rescaled(data, x))["stress"].square().sum(), torch.ones(()).double()
        ),
    )


def rescaled(data, factor):
    moved = copy.copy(data)
    moved.pos = factor * data.pos
    return moved


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_potentials():
    """Forces compile their network where it is differentiated once; as one graph it is refused."""
    potential, data = Forces(network("EGNN"), stress=True), structures(periodic=True)
    right = potential(data)
    torch.compiler.reset()
    compiled = torch.compile(potential, backend="aot_eager")
    for mode in MODES:
        with mode():
            same(compiled(data), right)
    outputs = compiled(data)
    same(outputs, right)
    by = list(potential.parameters())
    found = torch.autograd.grad(outputs["forces"].square().sum(), by, allow_unused=True)
    torch.testing.assert_close(found, torch.autograd.grad(right["forces"].square().sum(), by, allow_unused=True))
    torch.compiler.reset()
    with pytest.raises(Exception, match="leave out fullgraph=True"):
        torch.compile(potential, backend="aot_eager", fullgraph=True)(data)


def test_dipoles_alone_are_no_potential():
    with pytest.raises(geoeq.errors.FieldError, match="forces need an 'energy'"):
        Forces(EGNN([Dipole()], width=8, layers=1))
