"""The contract of a backend, implemented in plain PyTorch: any device, derivatives of any order.

Other backends are compared with this one, and inherit from it the operations for which they have nothing faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.kernels.paths import Path, Paths
from geoeq.kernels.segments import Blocks, EdgeTensors, Segments

__all__ = ["Backend"]


class Backend:
    """A kernel backend. This base class is the backend ``reference``; others override what they do faster.

    For the arguments and shapes of the operations see the functions of the same name in ``geoeq.kernels``, which check
    them. In sums ``values`` is [E, ...] and results are [num_segments, ...]; an empty segment gives 0. Tensor products
    contract harmonics with the couplings first, once for all channels; small matrix products do the rest.

    Attributes:
        name: name of the backend in the registry.
    """

    name: str = "reference"

    def available(self) -> str | None:
        """Return None if the backend can be used here, else the reason why not."""
        return None

    def supports(self, values: Tensor) -> bool:
        """Return whether the backend is to be chosen for the device and dtype of these values, if it is available."""
        return True

    def segment_sum(self, values: Tensor, segments: Segments) -> Tensor:
        """Sum the rows of each segment."""
        if torch.compiler.is_compiling():  # compiled code would add all segments into the single number below
            zeros = values.new_zeros(segments.num_segments, *values.shape[1:])
            return zeros.index_add(0, segments.index, values)
        zero = values.new_zeros(())  # a single expanded number: index_add allocates the result by itself
        return zero.expand(segments.num_segments, *values.shape[1:]).index_add(0, segments.index, values)

    def segment_max(self, values: Tensor, segments: Segments) -> Tensor:
        """Return the elementwise maximum of the rows of each segment."""
        maximum = values.new_zeros((segments.num_segments, *values.shape[1:]))
        index = segments.index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
        return maximum.scatter_reduce(0, index, values, "amax", include_self=False)

    def segment_softmax(self, values: Tensor, segments: Segments) -> Tensor:
        """Return the elementwise softmax over the rows of each segment."""
        maximum = self.segment_max(values.detach(), segments)
        weights = (values - maximum.index_select(0, segments.index)).exp()
        return weights / self.segment_sum(weights, segments).index_select(0, segments.index)

    def weighted_sum(self, values: Tensor, weights: Tensor, segments: Segments, blocks: Blocks) -> Tensor:
        """Sum the rows of each segment, each multiplied by its weights, one per head."""
        heads, sums = weights.shape[1], []
        for part, (rows, channels) in zip(values.split([r * c for r, c in blocks], dim=1), blocks, strict=True):
            split = part.reshape(-1, rows, heads, channels // heads)
            sums.append(self.segment_sum((split * weights[:, None, :, None]).flatten(1), segments))
        return torch.cat(sums, dim=1)

    def tensor_product(self, x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        """Return the blocks of the tensor product of each row."""
        return tuple(_joined(parts) for parts in _parts(x, harmonics, weights, paths))

    def tensor_product_linear(
        self, x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the blocks of the tensor product of each row, after a linear map of the channels of each block."""
        blocks = _parts(x, harmonics, weights, paths)
        return tuple(_mapped(parts, matrix) for parts, matrix in zip(blocks, maps, strict=True))

    def attended_product(
        self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: Segments, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the blocks of the tensor product, linearly mapped and summed per segment with attention weights."""
        mapped = self.tensor_product_linear(x, harmonics, None, paths.single, maps)
        blocks = tuple((value.shape[1], value.shape[2]) for value in mapped)
        values = torch.cat([value.flatten(1) for value in mapped], dim=1)
        sums = self.weighted_sum(values, weights, edges, blocks).split([rows * width for rows, width in blocks], dim=1)
        return tuple(part.unflatten(1, block) for part, block in zip(sums, blocks, strict=True))

    def tensor_product_conv(
        self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        """Gather the features of the senders, multiply, and sum at the receivers."""
        receivers = Segments(edges.receiver, x.shape[0], edges.row_pointers)
        messages = Backend.tensor_product(self, x.index_select(0, edges.sender), harmonics, weights, paths)
        return torch.cat([self.segment_sum(message, receivers).flatten(1) for message in messages], dim=1)

    def radial_tensor_product_conv(
        self, x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        """Do the same with the weights ``hidden @ matrix``."""
        return self.tensor_product_conv(x, harmonics, hidden @ matrix, edges, paths)


_Parts = list[tuple[int, Tensor]]  # (first channel, tensor) of each part of a block


def _parts(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> list[_Parts]:
    """Return the parts of each block of the product, one per piece, without copying them into their block."""
    rows = x.split([dim * channels for dim, channels in paths.x_blocks], dim=1)
    blocks = [row.reshape(x.shape[0], *shape) for row, shape in zip(rows, paths.x_blocks, strict=True)]  # [E, i, U]
    path_weights = None if weights is None else weights.split([path.weight_numel for path in paths.paths], dim=1)
    pieces = [[paths.paths[n] for n in piece] for piece in paths.pieces]
    heights = [(2 * piece[0].degrees[2] + 1) * len(piece) for piece in pieces]  # k · P
    widths = [paths.x_blocks[piece[0].x_block][0] for piece in pieces]  # i
    sizes = [height * width for height, width in zip(heights, widths, strict=True)]
    contracted = (harmonics[:, : paths.harmonics_dim] @ paths.matrix.to(harmonics)).split(sizes, dim=1)

    parts: list[_Parts] = [[] for _ in paths.out_blocks]
    for numbers, piece, couplings, height, width in zip(paths.pieces, pieces, contracted, heights, widths, strict=True):
        path, block = piece[0], blocks[piece[0].x_block]
        matrices = couplings.reshape(x.shape[0], height, width)  # [E, k · P, i]
        product = matrices * block if width == 1 else torch.bmm(matrices, block)  # [E, k · P, U]
        part = product.reshape(x.shape[0], height // len(piece), len(piece) * path.x_channels)  # [E, k, P · U]
        if path_weights is not None:
            part = _weighted(part, [path_weights[n] for n in numbers], path)
        parts[path.out_block].append((path.out_channel, part))
    return parts


def _weighted(part: Tensor, weights: Sequence[Tensor], path: Path) -> Tensor:
    joined = weights[0] if len(weights) == 1 else torch.cat(list(weights), dim=1)
    if path.mode == "uvu":
        return part * joined.unsqueeze(1)  # [E, k, P · U]
    return torch.bmm(part, joined.reshape(part.shape[0], part.shape[2], path.out_channels))  # [E, k, W]


def _joined(parts: _Parts) -> Tensor:
    """Return the block of these parts, side by side; parts that write to the same channels are added."""
    channels: dict[int, Tensor] = {}
    for start, part in parts:
        channels[start] = channels[start] + part if start in channels else part
    ordered = [channels[start] for start in sorted(channels)]
    return ordered[0] if len(ordered) == 1 else torch.cat(ordered, dim=2)  # [E, 2 l + 1, channels]


def _mapped(parts: _Parts, matrix: Tensor) -> Tensor:
    first, *others = [part @ matrix[start : start + part.shape[2]] for start, part in parts]
    for other in others:
        first = first + other
    return first  # [E, 2 l + 1, V]
