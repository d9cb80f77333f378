"""What an atom feels as it passes the cutoff: nothing is switched on or off there, but falls to zero before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

import geoeq.models
from geoeq.models import Model

STEP = 1e-3  # Å

#: Away from the direction in which the last atom leaves, so that the first of them is its last neighbour; Å.
CLUSTER = [[0.0, 0.0, 0.0], [-0.9, 0.7, 0.3], [-0.4, -1.1, 0.5], [-1.3, -0.2, -0.8]]

#: These stay beside it while it passes the cutoff of the first atom.
COMPANIONS = [[3.1, 1.3, 0.4], [2.6, -0.9, -0.8]]

DIRECTION = torch.nn.functional.normalize(torch.tensor([0.9, 0.2, -0.1], dtype=torch.float64), dim=0)


@pytest.fixture(params=(*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS))
def model(request: pytest.FixtureRequest) -> Model:
    """An example in which no branch is switched off."""
    torch.manual_seed(0)
    network: Model = getattr(geoeq.models, request.param).example().double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def structure(model: Model, beyond: float, others: list[list[float]]) -> Data:
    """Atoms at ``others`` and one that is ``beyond`` farther from the first than the cutoff."""
    assert model.cutoff is not None
    last = DIRECTION * (model.cutoff + beyond)
    pos = torch.cat([torch.tensor(others, dtype=torch.float64), last.unsqueeze(0)])
    numbers = torch.tensor([6, 8, 1, 7, 6, 1])
    return Data(z=numbers.repeat(2)[: len(pos)], pos=pos)


def energy_and_forces(model: Model, graphs: list[Data]) -> tuple[Tensor, Tensor, Tensor]:
    """Energies [G], forces as their derivatives [G, N, 3], and all outputs [G, M] of structures of the same size."""
    batch = Batch.from_data_list(graphs)
    batch.pos.requires_grad_()
    outputs = model(batch)
    (gradient,) = torch.autograd.grad(outputs["energy"].sum(), batch.pos)
    everything = [value.detach().reshape(len(graphs), -1) for value in outputs.values()]
    return outputs["energy"].detach(), -gradient.reshape(len(graphs), -1, 3), torch.cat(everything, dim=-1)


def assert_no_jump(values: Tensor, name: str) -> None:
    """The step across the cutoff, in the middle of a walk [S, M], is like the steps before and after it."""
    steps = values.diff(dim=0).norm(dim=-1)  # [S - 1]
    middle = len(steps) // 2
    near = torch.cat([steps[middle - 3 : middle], steps[middle + 1 : middle + 4]]).max()
    rounding = 1e-11 * values.abs().max()
    assert steps[middle] <= 1.5 * near + rounding, (
        f"{name} jumps by {float(steps[middle]):.2e} at the cutoff; steps beside it are at most {float(near):.2e}"
    )


@pytest.mark.parametrize("others", [CLUSTER, [*CLUSTER, *COMPANIONS]], ids=["last neighbour", "one of several"])
def test_nothing_jumps_at_the_cutoff(model: Model, others: list[list[float]]) -> None:
    walk = [structure(model, STEP * (k - 9.5), others) for k in range(20)]
    energy, forces, outputs = energy_and_forces(model, walk)
    assert_no_jump(energy.unsqueeze(-1), "The energy")
    assert_no_jump(forces.flatten(1), "The force")
    assert_no_jump(outputs, "An output")


def test_a_step_across_the_cutoff_vanishes_with_its_length(model: Model) -> None:
    """From 10⁻³ to 10⁻⁶ Å to either side, differences fall as fast: a jump of any size would stay."""
    differences = []
    for half in (1e-3, 1e-6):
        pair = [structure(model, beyond, [*CLUSTER, *COMPANIONS]) for beyond in (-half, half)]
        energy, forces, outputs = energy_and_forces(model, pair)
        differences.append(torch.stack([(v[1] - v[0]).abs().max() for v in (energy, forces, outputs)]))
        scale = torch.stack([v.abs().max() for v in (energy, forces, outputs)])
    assert (differences[1] <= 1.1e-3 * differences[0] + 1e-12 * scale).all(), f"{differences}"


@pytest.mark.parametrize("model", geoeq.models.NETWORKS, indirect=True)
def test_atoms_beyond_the_cutoff_do_not_feel_each_other(model: Model) -> None:
    together = structure(model, STEP, CLUSTER)
    energy, forces, _ = energy_and_forces(model, [together])
    parts = [Data(z=together.z[rows], pos=together.pos[rows]) for rows in (slice(0, -1), slice(-1, None))]
    alone = sum(model(Batch.from_data_list([part]))["energy"] for part in parts)
    torch.testing.assert_close(energy, alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(forces[:, -1], torch.zeros(1, 3, dtype=torch.float64))


def test_the_work_of_the_forces_is_the_change_of_energy(model: Model) -> None:
    """From well inside to outside: the interaction is there inside, and nothing of it is lost on the way."""
    walk = [structure(model, beyond, CLUSTER) for beyond in torch.linspace(-0.8, 0.1, 181).tolist()]
    energy, forces, _ = energy_and_forces(model, walk)
    along = forces[:, -1] @ DIRECTION  # [S]
    work = torch.trapezoid(along, dx=0.9 / 180)
    assert (energy[0] - energy[-1]).abs() > 1e-6
    torch.testing.assert_close(work, energy[0] - energy[-1], rtol=1e-2, atol=1e-9)
