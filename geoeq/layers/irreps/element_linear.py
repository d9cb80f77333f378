"""Equivariant linear map whose matrices depend on the element of the node."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import InputError, check_sizes
from geoeq.fields import NUM_ELEMENTS
from geoeq.layers.chunked import chunked

__all__ = ["ElementLinear"]

#: Nodes per chunk: few enough that their matrices fit in a cache of some MB.
CHUNK = 64


class ElementLinear(nn.Module):
    """A linear map of the channels of each irrep with matrices ``W_z = Σ_a e_za W_a`` for the element z of the node.

    This is the tensor product of features with an embedding e of the element, without storing that product.

    Args:
        irreps_in: irreps of the input.
        irreps_out: irreps of the output.
        width: number A of channels of the embedding.

    Shapes:
        blocks: [N, 2 l + 1, channels] each, channels last; numbers: [N] int64. Returns the blocks of irreps_out.

    Raises:
        InputError: one of irreps_out does not occur in the input, or the width is less than 1.

    Source:
        Batzner et al. 2022, arXiv:2101.03164 (self-interaction, in its code). Differs: weights are initialized normally
        with variance 1 / (A fan-in).
    """

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, width: int) -> None:
        super().__init__()
        check_sizes(self, width=width)
        self.sources = tuple(tuple(n for n, (_, other) in enumerate(irreps_in) if other == ir) for _, ir in irreps_out)
        if not all(self.sources):
            raise InputError(f"ElementLinear: no linear map from {irreps_in} reaches all of {irreps_out}.")
        self.embedding = nn.Embedding(NUM_ELEMENTS, width)
        self.weights = nn.ParameterList(
            torch.randn(width, fan_in := sum(irreps_in[n].mul for n in sources), mul) / math.sqrt(width * fan_in)
            for (mul, _), sources in zip(irreps_out, self.sources, strict=True)
        )

    def on_blocks(self, blocks: Sequence[Tensor], numbers: Tensor) -> list[Tensor]:
        """Apply the map to channels-last blocks."""
        table, index = self.embedding.weight, numbers
        if not torch.compiler.is_compiling():  # the number of elements is not known before
            present, index = numbers.unique(return_inverse=True)
            table = self.embedding(present)  # [Z, A]
        result = []
        for sources, weight in zip(self.sources, self.weights, strict=True):
            x = blocks[sources[0]] if len(sources) == 1 else torch.cat([blocks[n] for n in sources], dim=2)
            matrices = torch.einsum("za,auv->zuv", table, weight)
            result.append(chunked(torch.matmul, [x], [], CHUNK, tables=[(matrices, index)]))  # [N, 2 l + 1, V]
        return result
