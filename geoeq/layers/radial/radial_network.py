"""Network from a radial basis to the weights of a tensor product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import check_sizes
from geoeq.layers.layer import Rowwise

__all__ = ["RadialNetwork"]


class RadialNetwork(Rowwise):
    """Linear maps with layer norms and SiLU between them, from invariants of an edge to the weights of its paths.

    Args:
        width: number K of invariants, such as those of a radial basis.
        hidden: widths of the hidden layers.
        width_out: number of weights.
        offset: whether the last map has a bias, initialized uniformly instead of with zero, so that weights differ from
            the start.

    Shapes:
        x: [E, K]. Returns [E, width_out].

    Raises:
        InputError: a number is out of range.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, appendix B ("radial functions").
    """

    def __init__(self, width: int, hidden: Sequence[int], width_out: int, offset: bool = True) -> None:
        super().__init__()
        check_sizes(self, width=width, hidden=hidden, width_out=width_out)
        self.irreps_in, self.irreps_out = o3.Irreps(f"{width}x0e"), o3.Irreps(f"{width_out}x0e")
        widths = [width, *hidden]
        modules: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            modules += [nn.Linear(before, after), nn.LayerNorm(after), nn.SiLU()]
        modules.append(nn.Linear(widths[-1], width_out, bias=not offset))
        self.network = nn.Sequential(*modules)
        for module in modules:
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.offset = None
        if offset:
            bound = 1 / math.sqrt(widths[-1])
            self.offset = nn.Parameter(torch.empty(width_out).uniform_(-bound, bound))

    @classmethod
    def example(cls) -> Self:
        return cls(4, [8, 8], 6)

    def forward(self, x: Tensor) -> Tensor:
        weights: Tensor = self.network(x)
        return weights if self.offset is None else weights + self.offset

    def hidden(self, x: Tensor) -> Tensor:
        """Return the input of the last linear map, [E, H]."""
        hidden: Tensor = self.network[:-1](x)
        return hidden

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return two factors of the result, [E, H + 1] and [H + 1, width_out], whose last row is the offset."""
        matrix, offset = self.last()
        hidden = nn.functional.pad(self.hidden(x), (0, 1), value=1.0)
        return hidden, torch.cat([matrix.mT, offset.unsqueeze(0)])

    def last(self) -> tuple[Tensor, Tensor]:
        """Return the matrix [width_out, H] and the offset [width_out] of the last linear map."""
        linear: nn.Linear = self.network[-1]  # type: ignore[assignment]
        return linear.weight, linear.bias if self.offset is None else self.offset
