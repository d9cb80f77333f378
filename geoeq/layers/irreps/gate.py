"""Nonlinearities for features of any irreps: gates, and functions of the norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import check_positive
from geoeq.layers.irreps.activation import Activation, activation_function, activation_scale
from geoeq.layers.irreps.layout import irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.layer import Rowwise

__all__ = ["Gate", "NormActivation"]


class Gate(Rowwise):
    """Gated nonlinearity: an activation of the scalars; each other copy is multiplied by a function of an extra scalar.

    Args:
        irreps: irreps of the result. Its scalars (0e) come first; all other irreps are gated.
        activation: activation of the scalars, see ``Activation``.
        gate: activation of the gates.
        normalize: whether to multiply both activations by the factor that preserves a variance of one, as in e3nn.

    Shapes:
        x: [N, irreps_in.dim], scalars and gates in one block of 0e, then the gated irreps. Returns [N, irreps_out.dim].

    Raises:
        InputError: an activation is unknown.

    Source:
        Weiler et al., NeurIPS 2018, arXiv:1807.02547, section 4.2; as ``e3nn.nn.Gate``.
    """

    def __init__(
        self, irreps: o3.Irreps | str, activation: str = "silu", gate: str = "sigmoid", normalize: bool = True
    ) -> None:
        super().__init__()
        irreps = o3.Irreps(irreps)
        self.num_scalars = irreps.count("0e")
        gated = o3.Irreps([entry for entry in irreps if entry.ir != o3.Irrep("0e")])
        self.gate_sizes = [mul for mul, _ in gated]
        scalars = o3.Irreps([(self.num_scalars, "0e")] if self.num_scalars else [])
        self.irreps_in = o3.Irreps([(self.num_scalars + gated.num_irreps, "0e")]) + gated
        self.irreps_out = scalars + gated
        self.blocks_in = irreps_blocks(self.irreps_in)
        self.activation = Activation(scalars, activation, normalize)
        self.gate = activation_function(gate)
        self.gate_scale = activation_scale(gate) if normalize else 1.0

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x0o + 3x1o + 1x2e")

    def forward(self, x: Tensor) -> Tensor:
        return to_e3nn_layout(self.on_blocks(to_channels_last(x, self.blocks_in)))

    def on_blocks(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Apply the gate to channels-last blocks, [N, 2 l + 1, channels] each."""
        scalars, *gates = blocks[0].split([self.num_scalars, *self.gate_sizes], dim=2)
        result = [self.activation(scalars)] if self.num_scalars else []
        for gate, block in zip(gates, blocks[1:], strict=True):
            result.append(block * (self.gate(gate) * self.gate_scale))
        return result


class NormActivation(Rowwise):
    """``x φ(|x| + b) / |x|`` for each copy of each irrep, with the smooth norm ``|x|² = Σ x_k² + ε²``.

    The smooth norm is differentiable to all orders where a feature vanishes. A small feature is multiplied by
    ``φ(ε + b) / ε``: a small ε multiplies rounding errors of features that vanish by symmetry, in each layer again.

    Args:
        irreps: irreps of the input and the output.
        activation: name of φ, see ``Activation``.
        bias: whether to learn b, one for each copy.
        eps: ε of the smooth norm.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: φ is unknown, or ε is not positive.

    Source:
        Thomas et al. 2018, arXiv:1802.08219, section 4.3. Differs: the norm is smooth.
    """

    def __init__(self, irreps: o3.Irreps | str, activation: str = "silu", bias: bool = True, eps: float = 1.0) -> None:
        super().__init__()
        check_positive(self, eps=eps)  # the norm has no derivative at zero without it
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
