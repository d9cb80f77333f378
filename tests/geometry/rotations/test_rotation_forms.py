"""Forms of a rotation, distance, mean and fit: round trips, derivatives, and what is nearly degenerate."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3
from torch.autograd import gradcheck, gradgradcheck

from geoeq.errors import TensorError
from geoeq.geometry.rotations import (
    align,
    geodesic_distance,
    irreps_to_matrix,
    matrix_from_6d,
    matrix_from_9d,
    matrix_from_quaternion,
    matrix_from_rotation_vector,
    matrix_to_6d,
    matrix_to_9d,
    matrix_to_irreps,
    matrix_to_quaternion,
    matrix_to_rotation_vector,
    mean_rotation,
    nearest_orthogonal,
    nearest_rotation,
    random_orthogonals,
    random_rotations,
    random_turns,
)

EYE = torch.eye(3, dtype=torch.float64)
HALF_TURNS = torch.stack([2 * EYE[:, k : k + 1] @ EYE[k : k + 1] - EYE for k in range(3)])
FORMS = {
    "6d": (matrix_to_6d, matrix_from_6d),
    "9d": (matrix_to_9d, matrix_from_9d),
    "quaternion": (matrix_to_quaternion, matrix_from_quaternion),
    "rotation vector": (matrix_to_rotation_vector, matrix_from_rotation_vector),
}


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def rotations():
    """Some at random, the identity, half turns, and others close to those."""
    some = random_rotations(50, torch.Generator().manual_seed(0), torch.float64)
    small = matrix_from_rotation_vector(torch.tensor([[1e-9, 0, 0], [1e-4, 2e-4, 0], [0, 0.1, 0.1]]).double())
    almost = matrix_from_rotation_vector((math.pi - 1e-7) * EYE)
    return torch.cat([some, EYE[None], HALF_TURNS, small, almost, HALF_TURNS @ small[2]])


@pytest.mark.parametrize("form", FORMS)
def test_a_rotation_comes_back(form):
    write, read = FORMS[form]
    torch.testing.assert_close(read(write(rotations())), rotations(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_any_numbers_give_a_rotation_with_right_derivatives(form):
    _, read = FORMS[form]
    width = {"6d": 6, "9d": 9, "quaternion": 4, "rotation vector": 3}[form]
    numbers = normal(5, width).requires_grad_()
    made = read(numbers)
    torch.testing.assert_close(made @ made.mT, EYE.expand(5, 3, 3))
    torch.testing.assert_close(made.det(), torch.ones(5, dtype=torch.float64))
    assert gradcheck(read, (numbers,))
    assert gradgradcheck(read, (numbers,))


def test_a_rotation_vector_is_the_exponential():
    vectors = torch.cat([3 * normal(20, 3), 1e-3 * normal(5, 3), torch.zeros(1, 3)])
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    hat = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)
    torch.testing.assert_close(matrix_from_rotation_vector(vectors), torch.matrix_exp(hat), rtol=0, atol=1e-13)


@pytest.mark.parametrize("length", [0.0, 1e-8, 0.19, 0.2, 0.9999, 1.0, 1.5, 3.1])
def test_derivatives_of_rotation_vectors_at_every_angle(length):
    """At zero, and on both sides of where a series takes over."""
    vector = (length * torch.tensor([[2.0, -1.0, 2.0]], dtype=torch.float64) / 3).requires_grad_()
    assert gradcheck(matrix_from_rotation_vector, (vector,))
    assert gradgradcheck(matrix_from_rotation_vector, (vector,))
    assert gradcheck(lambda v: matrix_to_rotation_vector(matrix_from_rotation_vector(v)), (vector,))
    back = matrix_to_rotation_vector(matrix_from_rotation_vector(vector))
    torch.testing.assert_close(back, vector, rtol=1e-13, atol=1e-15)


def test_quaternions_are_known_ones():
    half = math.sqrt(0.5)
    quarter = torch.tensor([half, 0, 0, half], dtype=torch.float64)
    expected = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(matrix_from_quaternion(quarter), expected)
    torch.testing.assert_close(matrix_to_quaternion(expected), quarter)
    assert (matrix_to_quaternion(rotations())[:, 0] >= 0).all()
    assert matrix_to_6d(expected).tolist() == [0, 1, 0, -1, 0, 0]


def stretched(values, proper=True):
    left, right = random_rotations(2, torch.Generator().manual_seed(3), torch.float64)
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right, left @ right


@pytest.mark.parametrize("values", [[3, 2, 1], [1, 1, 1], [2, 1, 1], [2, 2, 1], [1, 1 + 1e-9, 1 - 1e-9], [2, 1, 0]])
def test_the_polar_factor_has_derivatives_at_equal_singular_values(values):
    matrix, factor = stretched(values)
    torch.testing.assert_close(nearest_rotation(matrix), factor)
    matrix.requires_grad_()
    assert gradcheck(nearest_rotation, (matrix,))
    assert gradgradcheck(nearest_rotation, (matrix,))
    if values[2]:
        torch.testing.assert_close(nearest_orthogonal(matrix), factor)
        assert gradcheck(nearest_orthogonal, (matrix,))


def test_derivatives_through_the_factors_of_the_svd_fail_there():
    """What the form with sums of singular values is for."""
    matrix = stretched([1, 1 + 1e-14, 1 - 1e-14])[0].requires_grad_()
    left, _, right = torch.linalg.svd(matrix)
    weights = normal(3, 3)
    (through_svd,) = torch.autograd.grad((left @ right * weights).sum(), matrix)
    (ours,) = torch.autograd.grad((nearest_rotation(matrix) * weights).sum(), matrix)
    assert ours.abs().max() < 3
    assert not (through_svd - ours).abs().max() < 1e-3


def test_reflections_are_mended_or_kept():
    matrix, factor = stretched([3, 2, -1])
    torch.testing.assert_close(nearest_rotation(matrix), factor)
    assert float(nearest_orthogonal(matrix).det()) == pytest.approx(-1)
    distances = (random_rotations(5000, torch.Generator().manual_seed(1), torch.float64) - matrix).square().sum((1, 2))
    assert distances.min() > (nearest_rotation(matrix) - matrix).square().sum()
    for function in (nearest_rotation, nearest_orthogonal):
        assert gradcheck(function, (matrix.clone().requires_grad_(),))


@pytest.mark.parametrize("values", [[1, 0, 0], [0, 0, 0], [2, 1, -1]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_where_no_rotation_is_nearest_all_is_finite(values, dtype):
    matrix = stretched(values)[0].to(dtype).requires_grad_()
    found = nearest_rotation(matrix)
    torch.testing.assert_close(found @ found.mT, EYE.to(dtype))
    (slope,) = torch.autograd.grad((found * normal(3, 3).to(dtype)).sum(), matrix)
    assert slope.isfinite().all()


def test_random_orthogonals_and_turns_are_uniform():
    matrices = random_orthogonals(4000, torch.Generator().manual_seed(0), torch.float64)
    torch.testing.assert_close(matrices @ matrices.mT, EYE.expand(4000, 3, 3))
    assert abs(float(matrices.det().mean())) < 0.05
    assert matrices.mean(0).abs().max() < 0.05
    axis = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)
    turns = random_turns(4000, axis.tolist(), torch.Generator().manual_seed(0), torch.float64)
    torch.testing.assert_close(turns @ axis, axis.expand(4000, 3))
    torch.testing.assert_close(turns.det(), torch.ones(4000, dtype=torch.float64))
    mean = axis[:, None] * axis / 9
    assert (turns.mean(0) - mean).abs().max() < 0.05


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-9])
def test_distance_is_the_angle_and_has_a_finite_derivative(angle):
    axis = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3
    start = random_rotations(1, torch.Generator().manual_seed(0), torch.float64)[0]
    vector = (angle * axis).requires_grad_()
    distance = geodesic_distance(start, start @ matrix_from_rotation_vector(vector))
    assert float(distance.detach()) == pytest.approx(angle, abs=1e-14)
    (slope,) = torch.autograd.grad(distance, vector)
    torch.testing.assert_close(slope, axis if angle > 1e-10 else 0 * axis, rtol=0, atol=1e-6)


def test_distance_at_zero_and_at_half_turns():
    for other in (EYE, *HALF_TURNS):
        turned = other.clone().requires_grad_()
        distance = geodesic_distance(EYE, turned)
        assert float(distance.detach()) == (0 if other is EYE else math.pi)
        (slope,) = torch.autograd.grad(distance, turned)
        assert slope.isfinite().all()
        assert slope.abs().max() <= 1


def test_the_mean_of_rotations():
    middle = random_rotations(1, torch.Generator().manual_seed(0), torch.float64)
    aside = matrix_from_rotation_vector(0.4 * normal(6, 3))
    both = torch.cat([middle @ aside, middle @ aside.mT])
    torch.testing.assert_close(mean_rotation(both), middle[0])
    weights = torch.zeros(12, dtype=torch.float64)
    weights[3] = 2.0
    torch.testing.assert_close(mean_rotation(both, weights), both[3])
    found = mean_rotation(both[:5])
    near = found @ matrix_from_rotation_vector(0.01 * normal(200, 3))
    cost = (near[:, None] - both[:5]).square().sum((1, 2, 3))
    assert cost.min() > (found - both[:5]).square().sum()


def points():
    """Three graphs, one of them of a single point, each turned and moved."""
    batch = torch.tensor([0] * 6 + [1] + [2] * 5)
    pos = normal(12, 3)
    rotation = random_rotations(3, torch.Generator().manual_seed(2), torch.float64)
    shift = normal(3, 3)
    target = (rotation[batch] @ pos.unsqueeze(-1)).squeeze(-1) + shift[batch]
    return pos, target, batch, rotation, shift


def test_points_are_brought_back():
    pos, target, batch, rotation, shift = points()
    found = align(pos, target, batch)
    torch.testing.assert_close(found.aligned, target)
    torch.testing.assert_close(found.rotation[[0, 2]], rotation[[0, 2]])
    torch.testing.assert_close(found.translation[[0, 2]], shift[[0, 2]])
    assert found.rmsd.max() < 1e-14


def test_a_fit_is_the_best_one_and_each_graph_has_its_own():
    pos, target, batch, *_ = points()
    target = target + 0.3 * normal(12, 3, 1).squeeze(-1)
    weights = torch.linspace(0.5, 2, 12, dtype=torch.float64)
    found = align(pos, target, batch, weights=weights)
    single = align(pos[7:], target[7:], weights=weights[7:])
    torch.testing.assert_close(found.rotation[2], single.rotation[0])
    torch.testing.assert_close(found.rmsd[2], single.rmsd[0])

    def cost(rotation, translation):
        moved = torch.einsum("kij,nj->kni", rotation, pos[7:]) + translation[:, None]
        return ((moved - target[7:]).square().sum(-1) * weights[7:]).sum(-1) / weights[7:].sum()

    least = cost(single.rotation, single.translation)
    torch.testing.assert_close(least.sqrt(), single.rmsd)
    near = single.rotation @ matrix_from_rotation_vector(0.02 * normal(100, 3))
    assert (cost(near, single.translation + 0.02 * normal(100, 3, 1).squeeze(-1)) > least).all()


def test_a_mirror_image_needs_a_reflection():
    pos = normal(6, 3)
    assert float(align(pos, -pos).rmsd) > 0.1
    assert float(align(pos, -pos, reflections=True).rmsd) < 1e-14


def test_derivatives_of_a_fit():
    pos, target, batch, *_ = points()
    target = target + 0.1 * normal(12, 3, 1).squeeze(-1)
    keep = batch != 1  # a single point has no rotation
    batch = batch[keep].clamp(max=1)
    inputs = (pos[keep].requires_grad_(), target[keep].requires_grad_())
    assert gradcheck(lambda p, t: align(p, t, batch)[:3], inputs)
    perfect = align(pos, pos.clone().requires_grad_(), torch.zeros(12, dtype=torch.int64)).rmsd
    assert perfect.isfinite().all()


def test_fits_of_nothing_and_of_what_does_not_match():
    nothing = align(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), num_graphs=2)
    assert nothing.rotation.shape == (2, 3, 3)
    assert nothing.rotation.isfinite().all()
    with pytest.raises(TensorError, match=r"points are \[4, 3\] and target \[5, 3\]"):
        align(torch.zeros(4, 3), torch.zeros(5, 3))


@pytest.mark.usefixtures("float64")
def test_symmetric_matrices_turn_as_their_irreps():
    numbers, rotation = normal(5, 6), random_rotations(1)[0]
    matrix = irreps_to_matrix(numbers)
    turned = numbers @ o3.Irreps("0e + 2e").D_from_matrix(rotation).T
    torch.testing.assert_close(irreps_to_matrix(turned), rotation @ matrix @ rotation.T)
    torch.testing.assert_close(
        matrix_to_irreps(matrix + normal(5, 3, 3).tril(-1) - normal(5, 3, 3).tril(-1).mT), numbers
    )
    torch.testing.assert_close(matrix.square().sum((1, 2)), numbers.square().sum(1))
