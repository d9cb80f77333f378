"""Nonlinearities of the SE(3)-Transformer, which act on the norms of features."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from geoeq.errors import check_name
from geoeq.layers.irreps.layout import fiber, irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.layer import Rowwise

__all__ = ["NormKind", "SE3Norm"]

NormKind = Literal["bounded", "gate", "norm"]

#: Smallest norm with a direction ("norm"); ε of the smooth norm ("bounded", "gate").
_TINY, _SOFT = 2.0**-24, 1e-2

#: Factor of the gate that approximately preserves the norm of features.
_GAIN = 1.6


class SE3Norm(Rowwise):
    """Layer norm and nonlinearity of the norms of features.

    "gate" is smooth everywhere: ``SiLU(LayerNorm(s))`` for scalars, ``1.6 x σ(LayerNorm(|x|))`` for the rest. "bounded"
    first divides all features of a node by ``sqrt(1 + s)``, where s is their mean square with equal weight for each
    degree: it never enlarges a feature, and the result stays of order one. Features that grow from layer to layer make
    a deep network unstable, as the derivative of attention grows with their square. "norm", as published, keeps the
    direction and replaces the norm, ``x / |x| ReLU(LayerNorm(|x|))``, also for scalars: it is discontinuous where a
    scalar changes sign, and gives rounding errors of a vanishing feature the size of one that does not vanish.

    Args:
        irreps: irreps of the features, each degree once. Parities have no meaning.
        kind: "bounded", "gate" or "norm".

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: the kind is unknown.

    Source:
        Fuchs et al., NeurIPS 2020, arXiv:2006.10503, section 4 (norm nonlinearity); "norm" as in NVIDIA's
        implementation. Differs: "bounded" and "gate" are additions of geoeq.
    """

    group = "SE(3)"

    def __init__(self, irreps: o3.Irreps | str, kind: NormKind = "bounded") -> None:
        super().__init__()
        check_name("norm", kind, get_args(NormKind))
        self.irreps_in = self.irreps_out = o3.Irreps(irreps)
        self.degrees, self.kind = fiber(irreps), kind
        self.blocks = irreps_blocks(self.irreps_in)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _, channels in self.degrees)

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 3x1o + 2x2e")

    def forward(self, x: Tensor) -> Tensor:
        result, blocks = [], to_channels_last(x, self.blocks)  # [N, 2 l + 1, C] each
        if self.kind == "bounded":
            square = torch.stack([block.square().mean((1, 2)) for block in blocks], dim=-1).mean(-1)  # [N]
            blocks = [block * (square + 1).rsqrt()[:, None, None] for block in blocks]
        for (degree, _), block, norm in zip(self.degrees, blocks, self.norms, strict=True):
            if self.kind == "norm":
                square = block.square().sum(1)  # [N, C]
                length = torch.where(square > _TINY**2, square, _TINY**2).sqrt()
                result.append(block * (functional.relu(norm(length)) / length).unsqueeze(1))
            elif degree == 0:
                result.append(functional.silu(norm(block)))
            else:
                length = (block.square().sum(1) + _SOFT**2).sqrt()
                result.append(_GAIN * block * torch.sigmoid(norm(length)).unsqueeze(1))
        return to_e3nn_layout(result)
