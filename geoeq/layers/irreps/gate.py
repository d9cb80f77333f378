"""Gated nonlinearity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from e3nn import o3
from torch import Tensor

from geoeq.layers.irreps.activation import Activation, activation_function, activation_scale
from geoeq.layers.irreps.layout import irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.layer import Rowwise

__all__ = ["Gate"]


class Gate(Rowwise):
    """Scalars through a function; every other copy times a scalar of its own that went through another.

    Args:
        irreps: of the result. Its scalars (0e) come first; everything else is gated.
        activation: of the scalars, see ``Activation``.
        gate: of the gates.
        normalize: functions times the factor that keeps a variance of one, as in e3nn.

    Shapes:
        x: [N, irreps_in.dim], scalars and gates as one block of 0e, then what is gated. Returns [N, irreps_out.dim].

    Raises:
        InputError: a function is unknown.

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
        """The same, channels last: [N, 2 l + 1, channels] of each block to the like."""
        scalars, *gates = blocks[0].split([self.num_scalars, *self.gate_sizes], dim=2)
        result = [self.activation(scalars)] if self.num_scalars else []
        for gate, block in zip(gates, blocks[1:], strict=True):
            result.append(block * (self.gate(gate) * self.gate_scale))
        return result
