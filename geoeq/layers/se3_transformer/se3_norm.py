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

NormKind = Literal["gate", "norm"]

#: Smallest norm with a direction ("norm"); ε of the smooth norm ("gate").
_TINY, _SOFT = 2.0**-24, 1e-2

#: Factor of the gate that approximately preserves the norm of features.
_GAIN = 1.6


class SE3Norm(Rowwise):
    """Layer norm and nonlinearity of the norms of features.

    "gate" is smooth everywhere: ``SiLU(LayerNorm(s))`` for scalars, ``1.6 x σ(LayerNorm(|x|))`` for the rest.
    "norm", as published, keeps the direction and replaces the norm, ``x / |x| ReLU(LayerNorm(|x|))``, also for
    scalars: it is discontinuous where a scalar changes sign, and not differentiable where a feature vanishes.

    Args:
        irreps: irreps of the features, each degree once. Parities have no meaning.
        kind: "gate" or "norm".

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: the kind is neither "gate" nor "norm".

    Source:
        Fuchs et al., NeurIPS 2020, arXiv:2006.10503, section 4 (norm nonlinearity); "norm" as in NVIDIA's
        implementation. Differs: "gate" is an addition of geoeq.
    """

    group = "SE(3)"

    def __init__(self, irreps: o3.Irreps | str, kind: NormKind = "gate") -> None:
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
        result = []
        for (degree, _), block, norm in zip(self.degrees, to_channels_last(x, self.blocks), self.norms, strict=True):
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
