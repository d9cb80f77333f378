"""Gated feed-forward network."""

from __future__ import annotations

from typing import Self

from e3nn import o3
from torch import Tensor

from geoeq.errors import check_rates
from geoeq.layers.irreps.dropout import EquivariantDropout
from geoeq.layers.irreps.gate import Gate
from geoeq.layers.irreps.layout import to_channels_last, to_e3nn_layout
from geoeq.layers.irreps.linear import Linear
from geoeq.layers.layer import Rowwise

__all__ = ["GatedFeedForward"]


class GatedFeedForward(Rowwise):
    """A gate between two linear maps, ``W_2 Gate(W_1 x)``.

    Args:
        irreps: irreps of the input.
        irreps_middle: irreps of the gated features.
        irreps_out: irreps of the output; None: as the input.
        dropout: probability of dropping a copy of an irrep of the result in training.

    Shapes:
        x: [N, irreps.dim]. Returns [N, irreps_out.dim].

    Raises:
        InputError: an irrep cannot be reached, or a number is out of range.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.3.
    """

    def __init__(
        self,
        irreps: o3.Irreps | str,
        irreps_middle: o3.Irreps | str,
        irreps_out: o3.Irreps | str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_rates(self, dropout=dropout)
        self.irreps_in = o3.Irreps(irreps)
        self.irreps_out = self.irreps_in if irreps_out is None else o3.Irreps(irreps_out)
        self.gate = Gate(irreps_middle)
        self.first = Linear(self.irreps_in, self.gate.irreps_in)
        self.second = Linear(self.gate.irreps_out, self.irreps_out)
        self.dropout = EquivariantDropout(self.irreps_out, dropout)

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x1o + 1x2e", "6x0e + 3x1o + 2x2e", "3x0e + 2x1o")

    def forward(self, x: Tensor) -> Tensor:
        blocks = self.gate.on_blocks(self.first.on_blocks(to_channels_last(x, self.first.blocks_in)))
        result: Tensor = self.dropout(to_e3nn_layout(self.second.on_blocks(blocks)))
        return result
