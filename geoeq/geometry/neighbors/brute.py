"""Neighbour search over all pairs of all graphs at once: receivers are rows, nodes of their graph padded columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.geometry.lattice import Lattice, to_cartesian, to_fractional
from geoeq.geometry.neighbors.edges import candidate_radius
from geoeq.geometry.neighbors.limits import image_ranges

__all__ = ["largest_graph", "nearest_pairs", "open_pairs", "periodic_pairs"]

#: Number of distances computed at a time: small enough for CPU caches, large enough to hide launches on a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**19, 2**24


class Rows(NamedTuple):
    """A slice of the receivers, with the graph of each and its index within the graph."""

    start: int
    stop: int
    batch: Tensor
    local: Tensor


def _rows(batch: Tensor, ptr: Tensor, width: int) -> Iterator[Rows]:
    """Yield slices of the receivers whose rows of ``width`` elements fit the bound on memory."""
    budget = CPU_ELEMENTS if batch.device.type == "cpu" else GPU_ELEMENTS
    step = max(1, budget // max(width, 1))
    local = torch.arange(len(batch), device=batch.device) - ptr[batch]
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        yield Rows(start, stop, batch[start:stop], local[start:stop])


def _pad(values: Tensor, batch: Tensor, ptr: Tensor, columns: int) -> Tensor:
    """Return values [N, D] of nodes as [D, G, columns], padded with infinity past the end of a graph."""
    padded = values.new_full((values.shape[1], len(ptr) - 1, columns), torch.inf)
    padded[:, batch, torch.arange(len(batch), device=batch.device) - ptr[batch]] = values.T
    return padded


def _square_distances(positions: Tensor, padded: Tensor, rows: Rows) -> Tensor:
    """Return [rows, columns] Å², rounded like ``edge_lengths``; infinite for padding and for a node with itself."""
    center = positions[rows.start : rows.stop].T.unsqueeze(-1)  # [3, rows, 1]
    square = (padded[0].index_select(0, rows.batch) - center[0]).square_()
    square += (padded[1].index_select(0, rows.batch) - center[1]).square_()
    square += (padded[2].index_select(0, rows.batch) - center[2]).square_()
    return square.scatter_(1, rows.local.unsqueeze(1), torch.inf)


def largest_graph(ptr: Tensor) -> int:
    """Return the number of nodes of the largest graph."""
    return int((ptr[1:] - ptr[:-1]).max()) if len(ptr) > 1 else 0


def open_pairs(positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float) -> tuple[Tensor, ...]:
    """Return sorted senders and receivers closer than the cutoff, for graphs without periodic directions."""
    columns = largest_graph(ptr)
    padded = _pad(positions, batch, ptr, columns)
    parts: list[tuple[Tensor, ...]] = []
    for rows in _rows(batch, ptr, columns):
        close = _square_distances(positions, padded, rows).sqrt_() < cutoff
        row, column = close.nonzero().unbind(1)
        parts.append((column + ptr[rows.batch[row]], row + rows.start))
    return _concatenate(parts)


def nearest_pairs(positions: Tensor, ptr: Tensor, batch: Tensor, k: int) -> tuple[Tensor, ...]:
    """Return senders and receivers of the k nearest nodes of each node; ties are broken by order."""
    columns = largest_graph(ptr)
    padded = _pad(positions, batch, ptr, columns)
    parts: list[tuple[Tensor, ...]] = []
    for rows in _rows(batch, ptr, columns):
        square = _square_distances(positions, padded, rows)  # [rows, columns]
        furthest = square.topk(min(k, columns), dim=1, largest=False).values[:, -1:]
        closer, tied = square < furthest, square == furthest
        keep = closer | (tied & (tied.cumsum(1) <= k - closer.sum(1, keepdim=True)))
        row, column = (keep & square.isfinite()).nonzero().unbind(1)
        parts.append((column + ptr[rows.batch[row]], row + rows.start))
    return _concatenate(parts)


def periodic_pairs(
    positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, lattice: Lattice
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sorted senders, receivers and shifts of all pairs closer than the cutoff, and of few others.

    Nodes are moved into their cell and pairs to their nearest image; from there only as many images are tested as the
    spacing of the lattice planes permits. This is done in float32 with a margin for rounding, because superfluous pairs
    do no harm.
    """
    columns, images = largest_graph(ptr), _images(lattice, cutoff)
    fractions = to_fractional(positions, batch, lattice)
    home_cell = fractions.floor()  # [N, 3]
    home = positions.double() - to_cartesian(home_cell, batch, lattice)
    home -= home.index_select(0, ptr.index_select(0, batch))  # keeps numbers small far from the origin
    inside = torch.cat([home, fractions - home_cell], dim=1).float()  # [N, 6]
    rounding = candidate_radius(inside[:, :3], ptr, batch, cutoff, lattice) - cutoff
    radius = candidate_radius(positions, ptr, batch, cutoff, lattice) + rounding  # [G]
    limit, vectors = radius.square().float(), lattice.vectors.float()
    padded = _pad(inside, batch, ptr, columns)
    offsets = (images.to(vectors.dtype) @ vectors).permute(2, 0, 1).contiguous()  # [3, G, K]
    open_direction = lattice.reciprocal.abs().sum(1) == 0  # [G, 3]
    offsets[:, ((images != 0) & open_direction.unsqueeze(1)).any(-1)] = torch.inf
    # The longer of the two dimensions is innermost, which a CPU vectorises.
    pair_dim, image_dim = (1, 2) if columns >= len(images) else (2, 1)
    parts: list[tuple[Tensor, ...]] = []
    for rows in _rows(batch, ptr, columns * len(images)):
        receivers = inside[rows.start : rows.stop].T.unsqueeze(-1)  # [6, rows, 1]
        # Padding is infinite here and NaN below, which never counts as closer than the radius.
        nearest = [(receivers[3 + k] - padded[3 + k].index_select(0, rows.batch)).round_() for k in range(3)]
        cells = vectors.index_select(0, rows.batch).unsqueeze(-1)  # [rows, 3, 3, 1]
        square = vectors.new_zeros(())
        for x in range(3):
            vector = padded[x].index_select(0, rows.batch).sub_(receivers[x])
            for k in range(3):
                vector.addcmul_(nearest[k], cells[:, k, x])
            offset = offsets[x].index_select(0, rows.batch).unsqueeze(image_dim)
            part = vector.unsqueeze(pair_dim) + offset  # [rows, K, columns] or [rows, columns, K]
            square = part.square_().add_(square)
        close = square < limit.index_select(0, rows.batch)[:, None, None]
        row, column, image = close.movedim(3 - pair_dim, 1).nonzero().unbind(1)
        pair = row * columns + column
        sender = column + ptr.index_select(0, rows.batch).index_select(0, row)
        receiver = row + rows.start
        shift = torch.stack([n.view(-1).index_select(0, pair) for n in nearest], dim=1)
        shift = shift.double() + images.index_select(0, image)
        parts.append(
            (sender, receiver, shift + home_cell.index_select(0, receiver) - home_cell.index_select(0, sender))
        )
    sender, receiver, shift = _concatenate(parts)
    other = ((sender != receiver) | (shift != 0).any(1)).nonzero().squeeze(1)
    shift = shift.index_select(0, other).to(positions.dtype)
    return sender.index_select(0, other), receiver.index_select(0, other), shift


def _images(lattice: Lattice, cutoff: float) -> Tensor:
    """Return the shifts [K, 3] from the nearest image that the cutoff reaches in any graph, in lexicographic order."""
    ranges = image_ranges(lattice, cutoff)
    return torch.cartesian_prod(*(torch.arange(-n, n + 1, device=lattice.vectors.device) for n in ranges))


def _concatenate(parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return parts[0] if len(parts) == 1 else tuple(torch.cat(tensors) for tensors in zip(*parts))
