"""Normalizations of functions on the sphere, as in EquiformerV2."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from geoeq.constants import constant
from geoeq.errors import check_name, check_positive, check_sizes
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.irreps.linear import degree_index
from geoeq.layers.layer import Rowwise

__all__ = ["SeparableLayerNorm", "SphereNorm", "SphereNormKind"]

#: Names of the published code.
SphereNormKind = Literal["layer_norm", "layer_norm_sh", "rms_norm_sh"]


@constant
def _mixing(lmax: int, kind: SphereNormKind) -> Tensor:
    """Return the matrix from squared components to the mean square by which each is divided, [K, K]."""
    sizes, degree = 2 * torch.arange(lmax + 1) + 1, degree_index(lmax)
    first_shared = {"layer_norm": lmax + 2, "layer_norm_sh": 1, "rms_norm_sh": 0}[kind]
    group = torch.arange(lmax + 1).clamp(max=first_shared)
    same_group = (group[:, None] == group).double()
    return (same_group / same_group.sum(0) / sizes[:, None])[degree][:, degree]


class SphereNorm(nn.Module):
    """Divide channels-last features by root mean squares, after subtracting the mean of the scalars.

    With ``s_l`` the mean square of degree l over its components and channels, degree l is divided by
    ``sqrt(eps + t_l)`` and multiplied by a weight for each degree and channel; scalars have a bias::

        layer_norm       t_l = s_l                             each degree separately
        layer_norm_sh    t_0 = s_0, t_l = mean of s_1 .. s_L   scalars, and all higher degrees together
        rms_norm_sh      t_l = mean of s_0 .. s_L              all degrees together

    **Only "rms_norm_sh" is sound for every structure.** The others multiply the rounding errors of degrees that vanish
    by symmetry by 1/sqrt(eps), in each layer again: "layer_norm" always (see ``EquivariantLayerNorm``),
    "layer_norm_sh" where all degrees from 1 to L vanish, as at the central atoms of CH4 (L < 3) and SF6 (L < 4), or of
    an icosahedron (L < 6).

    Args:
        lmax: highest degree L.
        channels: number C of channels.
        kind: one of the kinds above.
        eps: constant that keeps the result finite where features vanish.

    Shapes:
        x: [N, (lmax + 1)², C]. Returns the same.

    Raises:
        InputError: the kind is unknown, or a number is out of range.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.3 and figure 2; names of their code.
    """

    degree: Tensor
    mixing: Tensor

    def __init__(self, lmax: int, channels: int, kind: SphereNormKind = "rms_norm_sh", eps: float = 1e-5) -> None:
        super().__init__()
        check_sizes(self, channels=channels)
        check_sizes(self, least=0, lmax=lmax)
        check_positive(self, eps=eps)
        check_name("normalization", kind, get_args(SphereNormKind))
        self.kind, self.eps = kind, eps
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("degree", degree_index(lmax), persistent=False)
        self.register_buffer("mixing", _mixing(lmax, kind), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, :1]
        x = torch.cat([first - first.mean(-1, keepdim=True), x[:, 1:]], dim=1)
        mean_square = torch.matmul(x.square().mean(-1), self.mixing.to(x.dtype))  # [N, K]
        x = x * (mean_square + self.eps).rsqrt().unsqueeze(-1) * self.weight.index_select(0, self.degree)
        return torch.cat([x[:, :1] + self.bias, x[:, 1:]], dim=1)


class SeparableLayerNorm(Rowwise):
    """Layer norm of the scalars, and one root mean square for all higher degrees, with equal weight for each degree.

    The relative norms of the higher degrees are preserved, unlike in a separate norm of each degree. See ``SphereNorm``
    for structures in which all of them vanish.

    Args:
        lmax: highest degree.
        channels: number C of channels of each degree.
        eps: constant that keeps the result finite where features vanish.

    Shapes:
        x: [N, C (lmax + 1)²], irreps ``Cx0e + Cx1o + Cx2e + ...``. Returns the same.

    Raises:
        InputError: a number is out of range.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.3.
    """

    def __init__(self, lmax: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        check_sizes(self, channels=channels)
        check_sizes(self, least=0, lmax=lmax)
        check_positive(self, eps=eps)
        self.lmax, self.channels = lmax, channels
        self.irreps_in = self.irreps_out = sphere_irreps(lmax, channels)
        self.norm = SphereNorm(lmax, channels, "layer_norm_sh", eps)

    @classmethod
    def example(cls) -> Self:
        layer = cls(lmax=2, channels=4)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return from_coefficients(self.norm(to_coefficients(x, self.lmax, self.channels)), self.lmax)
