"""Wigner D matrices: the action of rotations on features of each degree."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor

from geoeq.constants import constant
from geoeq.errors import InputError

__all__ = ["MAX_DEGREE", "wigner_blocks", "wigner_d"]

#: Highest degree for which Wigner matrices are available.
MAX_DEGREE = 11

#: |y| of a unit vector above which it is rotated away from the pole before its angles are computed.
_NEAR_POLE = 0.75


@constant
def _half_turns() -> tuple[Tensor, ...]:
    """Return J for each degree, the half turn that exchanges x and y, and z with -z; J R_y J = R_x."""
    angle = torch.tensor(math.pi / 2)
    matrices = [o3.wigner_D(degree, angle, angle, angle) for degree in range(MAX_DEGREE + 1)]
    return tuple(torch.where(matrix.abs() < 1e-12, 0.0, (matrix + matrix.T) / 2) for matrix in matrices)


# Computed at import: torch.compile cannot trace e3nn's construction.
_HALF_TURNS = _half_turns()


def wigner_blocks(vectors: Tensor, lmax: int) -> tuple[Tensor, ...]:
    """Return, for each vector, the Wigner D matrices of a rotation that takes its direction to e3nn's pole, the y axis.

    With ``Y_l`` the harmonics of the direction, ``D^l Y_l = Y_l(y)``: only m = 0 remains. The angle about the vector is
    arbitrary, and results of SO(2)-equivariant maps in this frame do not depend on it. With u = R_y(α) R_x(β) y, and
    J of each degree the half turn that exchanges the axes::

        D(u) = J Z(-β) J Z(-α)         Z(φ): cos mφ and sin mφ, by recursion from those of φ

    Near the poles, where α is undefined, Ju replaces u, and ``D(u) = D(Ju) J``. No angle is ever computed, so
    derivatives of all orders are exact and finite in every direction. A zero vector has a constant frame, with zero
    derivatives.

    Args:
        vectors: vectors of any length.
        lmax: highest degree.

    Shapes:
        vectors: [E, 3]. Returns [E, 2l + 1, 2l + 1] for l = 0 to lmax, in e3nn's basis.

    Raises:
        InputError: lmax is negative or larger than ``MAX_DEGREE``.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655, for the frame; Pinchon & Hoggan, J. Phys. A 40,
        1597 (2007), for the product with constant J. Differs: the angle about the edge is a function of its direction,
        not random, and frames have derivatives.
    """
    _check_degree(lmax)
    length = vectors.square().sum(-1, keepdim=True)
    pole = torch.zeros_like(vectors) + vectors.new_tensor([0.0, 0.0, 1.0])
    direction = torch.where(length == 0, pole, vectors)
    x, y, z = (direction / direction.square().sum(-1, keepdim=True).sqrt()).unbind(-1)  # [E]

    near = y.abs() > _NEAR_POLE
    x, y, z = torch.where(near, y, x), torch.where(near, x, y), torch.where(near, -z, z)
    sine = (x.square() + z.square()).sqrt()  # of β; at least sqrt(1 - _NEAR_POLE²)
    azimuth = _multiples(z / sine, x / sine, lmax)  # [E, 2 lmax + 1] each
    polar = _multiples(y, sine, lmax)

    blocks = []
    for degree in range(lmax + 1):
        half_turn = _HALF_TURNS[degree].to(vectors)
        start = torch.where(near[:, None, None], half_turn, torch.eye(2 * degree + 1).to(vectors))
        block = (
            _times_rotation(start, azimuth, degree, lmax) @ half_turn
        )  # the transposed product: J on the right is one matmul
        block = _times_rotation(block, polar, degree, lmax) @ half_turn
        blocks.append(block.transpose(1, 2))
    return tuple(blocks)


def wigner_d(rotation: Tensor, lmax: int) -> tuple[Tensor, ...]:
    """Return the Wigner D matrices of rotations, to the precision of the dtype, differentiable at every rotation.

    Args:
        rotation: proper rotations.
        lmax: highest degree.

    Shapes:
        rotation: [..., 3, 3]. Returns [..., 2l + 1, 2l + 1] for l = 0 to lmax, in e3nn's basis.

    Raises:
        InputError: lmax is negative or larger than ``MAX_DEGREE``.
    """
    _check_degree(lmax)
    flat = rotation.reshape(-1, 3, 3)
    blocks = wigner_blocks(flat[:, :, 1], max(lmax, 1))  # F, with F R y = y: F R rotates about y
    rest = blocks[1] @ flat
    multiples = _multiples(rest[:, 0, 0], rest[:, 0, 2], lmax)
    rotated = [_times_rotation(blocks[degree].transpose(1, 2), multiples, degree, lmax) for degree in range(lmax + 1)]
    return tuple(block.reshape(*rotation.shape[:-2], *block.shape[1:]) for block in rotated)


def _check_degree(lmax: int) -> None:
    if not 0 <= lmax <= MAX_DEGREE:
        raise InputError(f"lmax is {lmax}; Wigner matrices are available from 0 to {MAX_DEGREE}.")


def _multiples(cosine: Tensor, sine: Tensor, lmax: int) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of m times an angle, for m = lmax down to -lmax, [E, 2 lmax + 1] each."""
    cosines, sines = [torch.ones_like(cosine)], [torch.zeros_like(sine)]
    for _ in range(lmax):
        last_cosine, last_sine = cosines[-1], sines[-1]
        cosines.append(last_cosine * cosine - last_sine * sine)
        sines.append(last_sine * cosine + last_cosine * sine)
    even = torch.stack([*reversed(cosines), *cosines[1:]], dim=-1)
    odd = torch.stack([*reversed(sines), *(-value for value in sines[1:])], dim=-1)
    return even, odd


def _times_rotation(matrix: Tensor, multiples: tuple[Tensor, Tensor], degree: int, lmax: int) -> Tensor:
    """Return ``matrix @ Z(angle)``, with Z a rotation about y, which has only a diagonal and an antidiagonal."""
    cosine, sine = (part[:, None, lmax - degree : lmax + degree + 1] for part in multiples)
    return matrix * cosine - matrix.flip(-1) * sine
