"""How features of each degree turn under a rotation: Wigner D matrices."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor

from geoeq.constants import constant
from geoeq.errors import InputError

__all__ = ["MAX_DEGREE", "wigner_blocks", "wigner_d"]

#: highest degree that Wigner matrices are made for.
MAX_DEGREE = 11

#: |y| of a unit vector beyond which it is turned away from the pole before its angles are taken.
_NEAR_POLE = 0.75


@constant
def _half_turns() -> tuple[Tensor, ...]:
    """J: for each degree the half turn that exchanges x and y, and z with -z; J R_y J = R_x."""
    angle = torch.tensor(math.pi / 2)
    matrices = [o3.wigner_D(degree, angle, angle, angle) for degree in range(MAX_DEGREE + 1)]
    return tuple(torch.where(matrix.abs() < 1e-12, 0.0, (matrix + matrix.T) / 2) for matrix in matrices)


# Made at import: torch.compile cannot trace e3nn's construction.
_HALF_TURNS = _half_turns()


def wigner_blocks(vectors: Tensor, lmax: int) -> tuple[Tensor, ...]:
    """For each vector a rotation that takes its direction to e3nn's pole, the y axis, as Wigner D matrices.

    With ``Y_l`` the harmonics of the direction, ``D^l Y_l = Y_l(y)``: only m = 0 is left. The angle about the vector
    is arbitrary, and what comes out of an SO(2)-equivariant map in this frame does not depend on it. With u = R_y(α)
    R_x(β) y, and J of each degree the half turn that exchanges the axes::

        D(u) = J Z(-β) J Z(-α)         Z(φ): cos mφ and sin mφ, by recursion from those of φ

    Near the poles, where α is not defined, Ju takes the place of u, and ``D(u) = D(Ju) J``. No angle is ever
    computed, so that derivatives of all orders are exact and finite in every direction. A zero vector has a
    constant frame, with derivatives zero.

    Args:
        vectors: of any length.
        lmax: highest degree.

    Shapes:
        vectors: [E, 3]. Returns [E, 2l + 1, 2l + 1] for l = 0 to lmax, in e3nn's basis.

    Raises:
        InputError: lmax is negative or above ``MAX_DEGREE``.

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
        block = _turn(start, azimuth, degree, lmax) @ half_turn  # the transposed product: J on the right is one matmul
        block = _turn(block, polar, degree, lmax) @ half_turn
        blocks.append(block.transpose(1, 2))
    return tuple(blocks)


def wigner_d(rotation: Tensor, lmax: int) -> tuple[Tensor, ...]:
    """Wigner D matrices of rotations, as exact as the dtype and with derivatives for every rotation.

    Args:
        rotation: proper rotations.
        lmax: highest degree.

    Shapes:
        rotation: [..., 3, 3]. Returns [..., 2l + 1, 2l + 1] for l = 0 to lmax, in e3nn's basis.

    Raises:
        InputError: lmax is negative or above ``MAX_DEGREE``.
    """
    _check_degree(lmax)
    flat = rotation.reshape(-1, 3, 3)
    blocks = wigner_blocks(flat[:, :, 1], max(lmax, 1))  # F, with F R y = y: F R turns about y
    rest = blocks[1] @ flat
    multiples = _multiples(rest[:, 0, 0], rest[:, 0, 2], lmax)
    turned = [_turn(blocks[degree].transpose(1, 2), multiples, degree, lmax) for degree in range(lmax + 1)]
    return tuple(block.reshape(*rotation.shape[:-2], *block.shape[1:]) for block in turned)


def _check_degree(lmax: int) -> None:
    if not 0 <= lmax <= MAX_DEGREE:
        raise InputError(f"lmax is {lmax}; Wigner matrices are available from 0 to {MAX_DEGREE}.")


def _multiples(cosine: Tensor, sine: Tensor, lmax: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of m times an angle, from m = lmax down to -lmax, [E, 2 lmax + 1] each."""
    cosines, sines = [torch.ones_like(cosine)], [torch.zeros_like(sine)]
    for _ in range(lmax):
        last_cosine, last_sine = cosines[-1], sines[-1]
        cosines.append(last_cosine * cosine - last_sine * sine)
        sines.append(last_sine * cosine + last_cosine * sine)
    even = torch.stack([*reversed(cosines), *cosines[1:]], dim=-1)
    odd = torch.stack([*reversed(sines), *(-value for value in sines[1:])], dim=-1)
    return even, odd


def _turn(matrix: Tensor, multiples: tuple[Tensor, Tensor], degree: int, lmax: int) -> Tensor:
    """``matrix @ Z(angle)``, with Z of a rotation about y: nothing but its diagonal and its antidiagonal."""
    cosine, sine = (part[:, None, lmax - degree : lmax + degree + 1] for part in multiples)
    return matrix * cosine - matrix.flip(-1) * sine
