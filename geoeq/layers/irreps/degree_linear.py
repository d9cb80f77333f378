"""A linear map of the channels for each degree, channels last."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from geoeq.constants import constant

__all__ = ["DegreeLinear", "degree_index"]


@constant
def degree_index(lmax: int) -> Tensor:
    """The degree of each of the (lmax + 1)² components: 0, 1, 1, 1, 2 .."""
    degrees = torch.arange(lmax + 1)
    return degrees.repeat_interleave(2 * degrees + 1)


class DegreeLinear(nn.Module):
    """``y_lm = W_l x_lm``, and b for l = 0: all that is linear and equivariant, for C channels of every degree.

    Args:
        width: number C of channels.
        width_out: number D of channels of the result.
        lmax: highest degree.
        bias: add b to the scalars.

    Shapes:
        x: [N, (lmax + 1)², C]. Returns [N, (lmax + 1)², D]. ``weight`` is [lmax + 1, C, D].

    Source:
        Thomas et al. 2018, arXiv:1802.08219, section 4.2 (self-interaction).
    """

    degrees: Tensor

    def __init__(self, width: int, width_out: int, lmax: int, bias: bool = True) -> None:
        super().__init__()
        self.register_buffer("degrees", degree_index(lmax).clone(), persistent=False)
        self.weight = nn.Parameter(torch.empty(lmax + 1, width, width_out))
        self.bias = nn.Parameter(torch.zeros(width_out)) if bias else None
        bound = math.sqrt(3 / width)  # variance 1 / C: that of the channels stays
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.index_select(0, self.degrees)  # [(L + 1)², C, D]
        y = torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)  # [N, (L + 1)², D]
        return y if self.bias is None else torch.cat([y[:, :1] + self.bias, y[:, 1:]], dim=1)
