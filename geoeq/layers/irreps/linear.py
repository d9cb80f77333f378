"""The linear maps that commute with rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.constants import constant
from geoeq.errors import InputError
from geoeq.layers.irreps.layout import irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.layer import Rowwise

__all__ = ["DegreeLinear", "Linear", "degree_index"]


class Linear(Rowwise):
    """Channels of each irrep mixed among themselves, ``y_vk = Σ_u W_vu x_uk``, with a bias for scalars (0e).

    Args:
        irreps_in: of the input.
        irreps_out: of the output.
        bias: add one to the scalars; no other irrep can have one.

    Shapes:
        x: [N, irreps_in.dim]. Returns [N, irreps_out.dim].

    Raises:
        InputError: the input has nothing that could give one of irreps_out.

    Source:
        Schur's lemma; as ``e3nn.o3.Linear``. Differs: no normalisation in the forward pass; weights start normal
        with variance 1 / fan-in, the bias at zero.
    """

    def __init__(self, irreps_in: o3.Irreps | str, irreps_out: o3.Irreps | str, bias: bool = True) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        self.blocks_in = irreps_blocks(self.irreps_in)
        self.sources = tuple(
            tuple(n for n, (_, other) in enumerate(self.irreps_in) if other == ir) for _, ir in self.irreps_out
        )
        lost = [str(ir) for (_, ir), mine in zip(self.irreps_out, self.sources, strict=True) if not mine]
        if lost:
            raise InputError(f"No linear map from {self.irreps_in} reaches {', '.join(lost)} of {self.irreps_out}.")
        self.weights = nn.ParameterList(
            torch.randn(fan_in := sum(self.irreps_in[n].mul for n in mine), mul) / max(fan_in, 1) ** 0.5
            for (mul, _), mine in zip(self.irreps_out, self.sources, strict=True)
        )
        scalars = [ir == o3.Irrep("0e") for _, ir in self.irreps_out]
        self.biased = tuple(scalar and bias for scalar in scalars)
        self.bias_sizes = [mul for (mul, _), scalar in zip(self.irreps_out, scalars, strict=True) if scalar]
        self.bias = nn.Parameter(torch.zeros(sum(self.bias_sizes))) if any(self.biased) else None

    @classmethod
    def example(cls) -> Self:
        layer = cls("4x0e + 2x1o + 3x0e + 1x2e", "3x0e + 2x1o + 1x2e + 2x0e")
        if layer.bias is not None:
            nn.init.normal_(layer.bias)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return to_e3nn_layout(self.on_blocks(to_channels_last(x, self.blocks_in)))

    def on_blocks(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """The same map, channels last: [N, 2 l + 1, channels] of each block to the like."""
        result = []
        for mine, weight in zip(self.sources, self.weights, strict=True):
            source = blocks[mine[0]] if len(mine) == 1 else torch.cat([blocks[n] for n in mine], dim=2)
            result.append(source @ weight)  # [N, 2 l + 1, V]
        return self.add_bias(result)

    def add_bias(self, blocks: Sequence[Tensor], bias: Tensor | None = None) -> list[Tensor]:
        """What is left to do where the matrices have been applied elsewhere; ``bias`` takes the place of its own."""
        if self.bias is None:
            return list(blocks)
        biases = iter((self.bias if bias is None else bias).split(self.bias_sizes))
        return [block + next(biases) if biased else block for block, biased in zip(blocks, self.biased, strict=True)]


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
