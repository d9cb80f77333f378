"""Of a training set in parts comes what comes of it as a whole, as the definitions read."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq.errors import InputError, TensorError
from geoeq.models import EGNN, ZBL, Dipole, GraphScalar, NodeScalar, SoftEquivariance, WithPriors
from geoeq.models.training_set import LeastSquares, composition, fit_references
from geoeq.symmetry import random_batch


def training_set(offset: float = 0.0):
    data = random_batch((4, 6, 2, 8, 10) * 9)
    generator = torch.Generator().manual_seed(0)
    data.energy = torch.randn(data.num_graphs, generator=generator, dtype=torch.float64) + offset
    data.forces = torch.randn(data.pos.shape, generator=generator, dtype=torch.float64)
    data.dipole = torch.randn(data.num_graphs, 3, generator=generator, dtype=torch.float64)
    data.charges = torch.randn(len(data.pos), generator=generator, dtype=torch.float64)
    return data


def in_batches(data, graphs):
    """Batches of so many graphs; of 1, structures without a batch."""
    found = []
    for place in range(data.num_graphs):
        nodes = data.batch == place
        own = {name: data[name][nodes] for name in ("z", "pos", "forces", "charges")}
        found.append(Data(**own, energy=data.energy[place : place + 1], dipole=data.dipole[place : place + 1]))
    if graphs == 1:
        return found
    return [Batch.from_data_list(found[start : start + graphs]) for start in range(0, len(found), graphs)]


@pytest.mark.parametrize("offset", [0.0, -1e6])
@pytest.mark.parametrize("together", [False, True])
def test_references_are_least_squares_whatever_the_parts(offset, together):
    data = training_set(offset)
    if together:  # one element is wherever another is: only the shortest solution is unique
        data.z = torch.tensor([1, 8]).repeat(data.num_nodes // 2)
    counts = composition(data.z, data.batch, data.num_graphs)
    expected = torch.linalg.lstsq(counts, data.energy.unsqueeze(1), driver="gelsd").solution.squeeze(1)
    left = data.energy - counts @ expected
    assert bool(torch.linalg.matrix_rank(counts) < (counts.sum(0) > 0).sum()) == together
    for parts in (data, in_batches(data, 1), in_batches(data, 5)):
        found = fit_references(parts, "energy", per_element=True)
        torch.testing.assert_close(found.references, expected, rtol=1e-10, atol=1e-10)
        assert found.spread == pytest.approx(float(left.square().mean().sqrt()), rel=1e-10)
        assert found.mean_atoms == data.num_nodes / data.num_graphs
        mean = fit_references(parts, "energy", per_element=False)
        assert float(mean.shift) == pytest.approx(float(data.energy.mean()), rel=1e-13)
        assert mean.spread == pytest.approx(float(data.energy.std(correction=0)), rel=1e-9)


def test_the_shortest_of_equally_good_solutions():
    torch.manual_seed(0)
    rows = torch.randn(60, 5, dtype=torch.float64)
    rows = torch.cat([rows, rows[:, :2] + rows[:, 2:4], torch.zeros(60, 1), torch.ones(60, 1)], 1)  # rank 6 of 9
    values = torch.randn(60, dtype=torch.float64) + 1e4
    fit = LeastSquares(9)
    for part in torch.arange(60).split(7):
        fit.add(rows[part], values[part])
    expected = torch.linalg.pinv(rows) @ values
    found, left = fit.solve()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert left == pytest.approx(float((values - rows @ expected).square().mean().sqrt()), rel=1e-9)
    torch.testing.assert_close(
        fit.solve(constant=8)[0], torch.linalg.pinv(rows) @ (values - values.mean()), rtol=0, atol=1e-10
    )


def test_heads_of_every_kind_are_fitted_alike():
    data = training_set()

    def fitted(parts, *wrappers):
        torch.manual_seed(0)
        model = EGNN([GraphScalar("energy"), Dipole(), NodeScalar("charges")], width=8, layers=1, cutoff=2.0).double()
        for wrap in wrappers:
            model = wrap(model)
        model.fit_heads(parts)
        return model

    def with_priors(model):
        return WithPriors(model, [ZBL()])

    def soft(model):
        return SoftEquivariance(model, ("rotation",))

    for wrappers in ((), (with_priors,), (soft,)):
        whole, parts = fitted(data, *wrappers), fitted(in_batches(data, 5), *wrappers)
        assert parts.config() == whole.config()
        for (name, one), other in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
            assert torch.allclose(one, other, rtol=1e-6 if one.dtype == torch.float32 else 1e-10, atol=1e-12), name


def test_what_cannot_be_gone_through_again_is_refused():
    model = EGNN([GraphScalar("energy")], width=8, layers=1)
    with pytest.raises(InputError, match="iterated only once: pass a batch, a list of batches or a loader"):
        model.fit_heads(iter([training_set()]))
    with pytest.raises(TensorError, match="no structure to fit references of 'energy'"):
        model.fit_heads([])
