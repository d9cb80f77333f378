"""Nonlinearity of the norm alone."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import InputError
from geoeq.layers.irreps.activation import activation_function
from geoeq.layers.irreps.layout import irreps_blocks
from geoeq.layers.layer import Rowwise

__all__ = ["NormActivation"]


class NormActivation(Rowwise):
    """``x φ(|x| + b) / |x|`` for every copy of every irrep, with the smooth norm ``|x|² = Σ x_k² + ε²``.

    The smooth norm has all derivatives where a feature vanishes.

    Args:
        irreps: of input and output.
        activation: φ, see ``Activation``.
        bias: learn b, one for each copy.
        eps: ε.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: φ is unknown, or ε is not positive.

    Source:
        Thomas et al. 2018, arXiv:1802.08219, section 4.3. Differs: the norm is smooth.
    """

    def __init__(self, irreps: o3.Irreps | str, activation: str = "silu", bias: bool = True, eps: float = 1e-3) -> None:
        super().__init__()
        if eps <= 0:
            raise InputError(f"eps must be positive, not {eps}: the norm has no derivative at zero without it.")
        self.irreps_in = self.irreps_out = o3.Irreps(irreps)
        self.blocks, self.eps = irreps_blocks(self.irreps_in), eps
        self.function = activation_function(activation)
        self.bias = nn.Parameter(torch.zeros(self.irreps_in.num_irreps)) if bias else None

    @classmethod
    def example(cls) -> Self:
        layer = cls("3x0e + 2x1o + 1x2e", eps=0.1)
        if layer.bias is not None:
            nn.init.normal_(layer.bias)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        sizes = [channels for _, channels in self.blocks]
        biases = [None] * len(sizes) if self.bias is None else self.bias.split(sizes)
        result = []
        parts = x.split([dim * channels for dim, channels in self.blocks], dim=-1)
        for part, (dim, channels), bias in zip(parts, self.blocks, biases, strict=True):
            block = part.reshape(part.shape[0], channels, dim)
            norm = (block.square().sum(-1) + self.eps**2).sqrt()  # [N, U]
            scale = self.function(norm if bias is None else norm + bias) / norm
            result.append((block * scale.unsqueeze(-1)).flatten(1))
        return torch.cat(result, dim=-1)
