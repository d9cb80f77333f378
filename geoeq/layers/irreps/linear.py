"""Equivariant linear maps, in e3nn's layout and channels last."""

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
    """A linear map of the channels of each irrep, ``y_vk = Σ_u W_vu x_uk``, with a bias for scalars (0e).

    Args:
        irreps_in: irreps of the input.
        irreps_out: irreps of the output.
        bias: whether scalars have a bias; no other irrep can have one.

    Shapes:
        x: [N, irreps_in.dim]. Returns [N, irreps_out.dim].

    Raises:
        InputError: one of irreps_out does not occur in the input.

    Source:
        Schur's lemma; as ``e3nn.o3.Linear``. Differs: no normalization in the forward pass; weights are initialized
        normally with variance 1 / fan-in, the bias with zero.
    """

    def __init__(self, irreps_in: o3.Irreps | str, irreps_out: o3.Irreps | str, bias: bool = True) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        self.blocks_in = irreps_blocks(self.irreps_in)
        self.sources = tuple(
            tuple(n for n, (_, other) in enumerate(self.irreps_in) if other == ir) for _, ir in self.irreps_out
        )
        unreached = [str(ir) for (_, ir), sources in zip(self.irreps_out, self.sources, strict=True) if not sources]
        if unreached:
            raise InputError(
                f"No linear map from {self.irreps_in} reaches {', '.join(unreached)} of {self.irreps_out}."
            )
        self.weights = nn.ParameterList(
            torch.randn(fan_in := sum(self.irreps_in[n].mul for n in sources), mul) / max(fan_in, 1) ** 0.5
            for (mul, _), sources in zip(self.irreps_out, self.sources, strict=True)
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
        """Apply the map to channels-last blocks, [N, 2 l + 1, channels] each."""
        result = []
        for sources, weight in zip(self.sources, self.weights, strict=True):
            x = blocks[sources[0]] if len(sources) == 1 else torch.cat([blocks[n] for n in sources], dim=2)
            rows = (
                x.flatten(0, 1) @ weight
            )  # one matrix: blocks may be transposed views, a product for each node is slow
            result.append(rows.view(*x.shape[:2], weight.shape[1]))  # [N, 2 l + 1, V]
        return self.add_bias(result)

    def add_bias(self, blocks: Sequence[Tensor], bias: Tensor | None = None) -> list[Tensor]:
        """Add the bias, or another of its shape, to blocks to which the matrices have been applied elsewhere."""
        if self.bias is None:
            return list(blocks)
        biases = iter((self.bias if bias is None else bias).split(self.bias_sizes))
        return [block + next(biases) if biased else block for block, biased in zip(blocks, self.biased, strict=True)]


@constant
def degree_index(lmax: int) -> Tensor:
    """Return the degree of each of the (lmax + 1)² components: 0, 1, 1, 1, 2, ..."""
    degrees = torch.arange(lmax + 1)
    return degrees.repeat_interleave(2 * degrees + 1)


class DegreeLinear(nn.Module):
    """The equivariant linear map of C channels of each degree, channels last: ``y_lm = W_l x_lm``, plus b for l = 0.

    Args:
        width: number C of channels.
        width_out: number D of channels of the result.
        lmax: highest degree.
        bias: whether scalars have a bias b.

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
        bound = math.sqrt(3 / width)  # variance 1 / C preserves the variance of the features
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.index_select(0, self.degrees)  # [(L + 1)², C, D]
        y = torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)  # [N, (L + 1)², D]
        return y if self.bias is None else torch.cat([y[:, :1] + self.bias, y[:, 1:]], dim=1)
