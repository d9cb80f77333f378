"""SO(2) convolutions are equivariant and equal the Clebsch-Gordan product."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from geoeq.errors import InputError, TensorError
from geoeq.geometry.harmonics import harmonics
from geoeq.geometry.rotations import random_rotations, wigner_blocks, wigner_d
from geoeq.layers import SO2Convolution
from geoeq.layers.edge_frames.so2 import from_edge_frame, order_sizes, to_edge_frame
from geoeq.layers.sphere.s2_grid import order_degree

LMAX, MMAX, C = 3, 2, 4
E = 6


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def rotated(x, rotation, lmax=LMAX):
    """Features [E, (lmax + 1)², C] of each edge after a rotation of each edge, [E, 3, 3] or one for all."""
    blocks = wigner_d(rotation, lmax)
    parts = x.split([2 * degree + 1 for degree in range(lmax + 1)], dim=1)
    return torch.cat([block @ part for block, part in zip(blocks, parts, strict=True)], dim=1)


def about_y(angles):
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = [(cosine, zero, sine), (zero, zero + 1, zero), (-sine, zero, cosine)]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def frames_of(vectors, lmax=LMAX):
    return wigner_blocks(vectors, lmax)


def test_rows_are_sorted_by_order_up_to_mmax():
    vectors, x = normal(E, 3), normal(E, (LMAX + 1) ** 2, C)
    full = rotated(x, frames_of(vectors)[1])  # the block of degree 1 is the rotation itself
    rows = [degree * (degree + 1) + m for degree, m in order_degree(LMAX, MMAX)]
    torch.testing.assert_close(to_edge_frame(x, frames_of(vectors), LMAX, MMAX), full[:, rows])
    assert order_degree(2, 2) == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, -1), (2, -1), (2, 2), (2, -2)]
    assert order_sizes(LMAX, MMAX) == (4, 3, 2)


def test_rotation_and_back_is_the_identity_or_a_projection():
    frames, x = frames_of(normal(E, 3)), normal(E, (LMAX + 1) ** 2, C)
    torch.testing.assert_close(from_edge_frame(to_edge_frame(x, frames, LMAX, LMAX), frames, LMAX, LMAX), x)
    y = to_edge_frame(x, frames, LMAX, 1)
    torch.testing.assert_close(to_edge_frame(from_edge_frame(y, frames, LMAX, 1), frames, LMAX, 1), y)
    again = to_edge_frame(from_edge_frame(y, frames, LMAX, 1, rescale=True), frames, LMAX, 1)
    ratio = (again / y)[0, :, 0]
    expected = [((2 * degree + 1) / (2 * min(degree, 1) + 1)) ** 0.5 for degree, _ in order_degree(LMAX, 1)]
    torch.testing.assert_close(ratio, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("radial_widths", [None, (5, 7)])
def test_convolution_commutes_with_rotations_about_the_edge(radial_widths):
    conv = SO2Convolution(LMAX, MMAX, C, 3, extra_scalars=2, radial_widths=radial_widths).double()
    edge_features = None if radial_widths is None else normal(E, 5)
    x = normal(E, (LMAX + 1) ** 2, C)
    spin = about_y(torch.linspace(0.3, 3, E, dtype=torch.float64))
    frames, spun = wigner_d(torch.eye(3).double().expand(E, 3, 3), LMAX), wigner_d(spin, LMAX)

    def run(frames):
        y, extra = conv(to_edge_frame(x, frames, LMAX, MMAX), edge_features)
        return from_edge_frame(y, frames, LMAX, MMAX), extra

    for value, expected in zip(run(spun), run(frames), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_convolution_between_rotations_is_equivariant():
    conv = SO2Convolution(LMAX, MMAX, C, 3).double()
    vectors, x = torch.cat([normal(E - 2, 3), torch.eye(3).double()[1:]]), normal(E, (LMAX + 1) ** 2, C)
    rotation = random_rotations(1, dtype=torch.float64)[0]

    def run(x, vectors):
        frames = frames_of(vectors)
        return from_edge_frame(conv(to_edge_frame(x, frames, LMAX, MMAX))[0], frames, LMAX, MMAX)

    value = run(rotated(x, rotation.expand(E, 3, 3)), vectors @ rotation.T)
    torch.testing.assert_close(value, rotated(run(x, vectors), rotation.expand(E, 3, 3)), rtol=1e-11, atol=1e-11)


def test_convolution_equals_the_clebsch_gordan_product():
    """All paths (l_in, l_filter, l_out) with random weights w: Σ w C x Y = the SO(2) convolution with

    W_m[l_out, l_in] = Σ_f w C[(l_in, m), (f, 0), (l_out, m)] Y_f(y) and V_m the same with (l_in, -m), (l_out, m).
    """
    lmax = 3
    vectors, x = normal(E, 3), normal(E, (lmax + 1) ** 2, 1)
    pole = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    at_pole = harmonics(pole, torch.ones(1, dtype=torch.float64), 2 * lmax)[0]
    around = harmonics(vectors, vectors.norm(dim=-1), 2 * lmax)

    conv = SO2Convolution(lmax, lmax, 1, 1).double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.zero_()
    full = torch.zeros(E, (lmax + 1) ** 2, 1, dtype=torch.float64)
    paths = [(i, f, o) for i in range(lmax + 1) for f in range(2 * lmax + 1) for o in range(lmax + 1)]
    for i, f, o in paths:
        if not abs(i - f) <= o <= i + f:
            continue
        cg = o3.wigner_3j(i, f, o, dtype=torch.float64)  # [2 i + 1, 2 f + 1, 2 o + 1]
        weight = float(normal(1))
        part = torch.einsum("ijk,eic,ej->ekc", cg, x[:, i * i : (i + 1) ** 2], around[:, f * f : (f + 1) ** 2])
        full[:, o * o : (o + 1) ** 2] += weight * part
        with torch.no_grad():
            in_frame = weight * torch.einsum("ijk,j->ki", cg, at_pole[f * f : (f + 1) ** 2])
            conv.scalar.weight[o, i] += in_frame[o, i]
            for m in range(1, min(i, o) + 1):
                weights, size = conv.orders[m - 1].weight, lmax + 1 - m
                weights[o - m, i - m] += in_frame[o + m, i + m]
                weights[size + o - m, i - m] += in_frame[o - m, i + m]
    frames = frames_of(vectors, lmax)
    value = from_edge_frame(conv(to_edge_frame(x, frames, lmax, lmax))[0], frames, lmax, lmax)
    torch.testing.assert_close(value, full, rtol=1e-11, atol=1e-11)
    assert full.abs().max() > 1


def test_derivatives_through_the_frames_are_right():
    conv = SO2Convolution(1, 1, 2, 1).double()

    def run(x, vectors):
        frames = frames_of(vectors, 1)
        return from_edge_frame(conv(to_edge_frame(x, frames, 1, 1))[0], frames, 1, 1)

    inputs = (normal(2, 4, 2).requires_grad_(), torch.eye(3).double()[:2].requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_no_edges_and_compilation_as_one_graph():
    conv = SO2Convolution(LMAX, MMAX, C, 3, extra_scalars=2, radial_widths=(5, 7)).double()

    def run(x, vectors, edge_features):
        frames = wigner_blocks(vectors, LMAX)
        y, extra = conv(to_edge_frame(x, frames, LMAX, MMAX), edge_features)
        return from_edge_frame(y, frames, LMAX, MMAX), extra

    nothing = run(normal(0, (LMAX + 1) ** 2, C), normal(0, 3), normal(0, 5))
    assert [tuple(part.shape) for part in nothing] == [(0, 16, 3), (0, 2)]
    inputs = normal(E, (LMAX + 1) ** 2, C), normal(E, 3), normal(E, 5)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(compiled, run(*inputs), rtol=1e-12, atol=1e-12)


def test_invalid_options_and_inputs_are_refused():
    with pytest.raises(InputError, match="between 0 and lmax = 2, not 3"):
        SO2Convolution(2, 3, C, C)
    conv = SO2Convolution(2, 1, C, C, radial_widths=(5, 7))
    with pytest.raises(TensorError, match=r"x is \[3, 9, 4\]; it must be \[E, 7, 4\]"):
        conv(torch.zeros(3, 9, C))
    with pytest.raises(TensorError, match="needs edge_features"):
        conv(torch.zeros(3, 7, C))
