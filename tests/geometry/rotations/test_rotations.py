"""Rotations and Wigner D matrices: those of e3nn, orthogonal, a group, and smooth at the poles."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3
from torch_geometric.data import Data

from geoeq.errors import InputError
from geoeq.geometry.harmonics import harmonics
from geoeq.geometry.rotations import MAX_DEGREE, random_rotations, wigner_blocks, wigner_d
from geoeq.graph import build_graph, edge_frames, with_frames

LMAX = 8
AXES = torch.cat([torch.eye(3), -torch.eye(3)]).double()


def generator():
    return torch.Generator().manual_seed(0)


def rotations(n=20):
    return random_rotations(n, generator(), torch.float64)


def directions():
    inside = torch.randn(20, 3, generator=generator(), dtype=torch.float64)
    return torch.cat([inside, AXES, torch.tensor([[1e-9, 2.0, 0.0], [0.0, -3.0, 1e-12]], dtype=torch.float64)])


def test_random_rotations_are_proper_and_uniform():
    matrices = random_rotations(4000, generator(), torch.float64)
    eye = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    torch.testing.assert_close(matrices @ matrices.mT, eye)
    torch.testing.assert_close(matrices.det(), torch.ones(4000, dtype=torch.float64))
    # Uniform over SO(3): entries have mean 0 and mean square 1/3, the trace mean square 1.
    assert matrices.mean(0).abs().max() < 0.05
    assert (matrices.square().mean(0) - 1 / 3).abs().max() < 0.03
    assert abs(matrices.diagonal(dim1=-2, dim2=-1).sum(-1).square().mean() - 1) < 0.1
    assert random_rotations(2, generator()).dtype == torch.float32


@pytest.mark.usefixtures("float64")
def test_wigner_d_is_that_of_e3nn():
    matrices = torch.cat([rotations(), torch.eye(3)[None], torch.diag(torch.tensor([1.0, -1, -1]))[None]])
    for degree, block in enumerate(wigner_d(matrices, LMAX)):
        torch.testing.assert_close(block, o3.Irrep(degree, 1).D_from_matrix(matrices), rtol=0, atol=1e-12)


def test_wigner_d_is_a_group_and_orthogonal_whatever_the_default_dtype():
    first, second = rotations(40).chunk(2)
    for one, other, both in zip(*(wigner_d(r, MAX_DEGREE) for r in (first, second, first @ second)), strict=True):
        torch.testing.assert_close(one @ other, both, rtol=0, atol=1e-12)
        eye = torch.eye(one.shape[-1], dtype=torch.float64)
        torch.testing.assert_close(one @ one.mT, eye.expand_as(one), rtol=0, atol=1e-12)


def test_wigner_d_keeps_leading_dimensions():
    blocks = wigner_d(rotations(6).reshape(2, 3, 3, 3), 2)
    assert [tuple(block.shape) for block in blocks] == [(2, 3, 1, 1), (2, 3, 3, 3), (2, 3, 5, 5)]


def test_frames_take_every_direction_to_the_pole():
    vectors = directions()
    found = harmonics(vectors, vectors.norm(dim=-1), LMAX)  # [E, (L + 1)²]
    pole = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    wanted = harmonics(pole, torch.ones(1, dtype=torch.float64), LMAX)
    for degree, block in enumerate(wigner_blocks(vectors, LMAX)):
        part = slice(degree**2, (degree + 1) ** 2)
        turned = torch.einsum("eij,ej->ei", block, found[:, part])
        torch.testing.assert_close(turned, wanted[:, part].expand_as(turned), rtol=0, atol=1e-12)


def test_frames_are_rotations_of_all_degrees_alike():
    blocks = wigner_blocks(directions(), LMAX)
    assert (blocks[1].det() - 1).abs().max() < 1e-12
    for block, of_rotation in zip(blocks, wigner_d(blocks[1], LMAX), strict=True):
        torch.testing.assert_close(block, of_rotation, rtol=0, atol=1e-12)


def test_derivatives_are_right_and_small_everywhere():
    vectors = directions().requires_grad_()
    flat = torch.cat([block.flatten(1) for block in wigner_blocks(vectors, 4)], dim=-1)
    weights = torch.randn(flat.shape, generator=generator(), dtype=torch.float64)
    (slope,) = torch.autograd.grad((flat * weights).sum(), vectors, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), vectors)
    scale = vectors.detach().norm(dim=-1, keepdim=True)
    assert (slope * scale).abs().max() < 200  # near a singularity it would be 1e9
    assert (curvature * scale**3).abs().max() < 1e5
    for vector in (AXES, directions()[:3]):
        assert torch.autograd.gradcheck(lambda v: wigner_blocks(v, 3), (vector.clone().requires_grad_(),))
        assert torch.autograd.gradgradcheck(lambda v: wigner_blocks(v, 3), (vector.clone().requires_grad_(),))


def test_zero_vectors_have_a_constant_frame():
    vectors = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    blocks = wigner_blocks(vectors, 3)
    total = sum(block.sum() for block in blocks)
    (slope,) = torch.autograd.grad(total, vectors, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), vectors)
    assert not slope.any()
    assert not curvature.any()
    torch.testing.assert_close(blocks[3][0] @ blocks[3][0].T, torch.eye(7, dtype=torch.float64))


def test_degrees_out_of_range_are_refused():
    with pytest.raises(InputError, match=f"lmax is 12; .* from 0 to {MAX_DEGREE}"):
        wigner_blocks(AXES, 12)
    with pytest.raises(InputError, match="lmax is -1"):
        wigner_d(rotations(1), -1)


def test_frames_are_computed_once_and_cut():
    pos = torch.randn(4, 3, generator=generator(), dtype=torch.float64)
    graph = build_graph(Data(pos=pos), cutoff=4.0)
    assert graph.frames is None
    made = edge_frames(graph, 2)
    graph = with_frames(graph, 3)
    kept = edge_frames(graph, 2)
    assert len(kept) == 3
    assert all(frame is stored for frame, stored in zip(kept, graph.frames, strict=False))
    assert all(torch.equal(frame, again) for frame, again in zip(kept, made, strict=True))
    assert len(edge_frames(graph, 4)) == 5


def test_detached_frames_have_no_derivatives():
    pos = torch.randn(3, 3, generator=generator(), dtype=torch.float64).requires_grad_()
    graph = build_graph(Data(pos=pos), cutoff=9.0)
    assert with_frames(graph, 2).frames[2].requires_grad
    assert not with_frames(graph, 2, detach=True).frames[2].requires_grad
