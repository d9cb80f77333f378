"""Every pair of every graph at once: each receiver is a row, the nodes of its graph are padded columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.geometry.lattice import Lattice, to_cartesian, to_fractional
from geoeq.geometry.neighbors.edges import candidate_radius
from geoeq.geometry.neighbors.limits import image_ranges

__all__ = ["largest_graph", "nearest_pairs", "open_pairs", "periodic_pairs"]

#: Distances held at a time: small enough for the caches of a CPU, large enough to hide launches on a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**19, 2**24


class Rows(NamedTuple):
    """A slice of the receivers, with the graph of each and its place there."""

    start: int
    stop: int
    batch: Tensor
    local: Tensor


def _rows(batch: Tensor, ptr: Tensor, width: int) -> Iterator[Rows]:
    """Slices of the receivers such that rows of ``width`` elements stay within the bound on memory."""
    budget = CPU_ELEMENTS if batch.device.type == "cpu" else GPU_ELEMENTS
    step = max(1, budget // max(width, 1))
    local = torch.arange(len(batch), device=batch.device) - ptr[batch]
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        yield Rows(start, stop, batch[start:stop], local[start:stop])


def _pad(values: Tensor, batch: Tensor, ptr: Tensor, columns: int) -> Tensor:
    """Values [N, D] of nodes as [D, G, columns]; what is past the end of a graph is infinite."""
    padded = values.new_full((values.shape[1], len(ptr) - 1, columns), torch.inf)
    padded[:, batch, torch.arange(len(batch), device=batch.device) - ptr[batch]] = values.T
    return padded


def _square_distances(positions: Tensor, padded: Tensor, rows: Rows) -> Tensor:
    """[rows, columns] Å², in the order of operations of ``edge_lengths``; infinite to itself and to padding."""
    center = positions[rows.start : rows.stop].T.unsqueeze(-1)  # [3, rows, 1]
    square = (padded[0].index_select(0, rows.batch) - center[0]).square_()
    square += (padded[1].index_select(0, rows.batch) - center[1]).square_()
    square += (padded[2].index_select(0, rows.batch) - center[2]).square_()
    return square.scatter_(1, rows.local.unsqueeze(1), torch.inf)


def largest_graph(ptr: Tensor) -> int:
    """Number of nodes of the largest graph."""
    return int((ptr[1:] - ptr[:-1]).max()) if len(ptr) > 1 else 0


def open_pairs(positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float) -> tuple[Tensor, ...]:
    """Senders and receivers closer than the cutoff, sorted, where nothing is periodic."""
    columns = largest_graph(ptr)
    padded = _pad(positions, batch, ptr, columns)
    found: list[tuple[Tensor, ...]] = []
    for rows in _rows(batch, ptr, columns):
        close = _square_distances(positions, padded, rows).sqrt_() < cutoff
        row, column = close.nonzero().unbind(1)
        found.append((column + ptr[rows.batch[row]], row + rows.start))
    return _concatenate(found)


def nearest_pairs(positions: Tensor, ptr: Tensor, batch: Tensor, k: int) -> tuple[Tensor, ...]:
    """Senders and receivers of the k nearest nodes of each node; of equally near ones the first come."""
    columns = largest_graph(ptr)
    padded = _pad(positions, batch, ptr, columns)
    found: list[tuple[Tensor, ...]] = []
    for rows in _rows(batch, ptr, columns):
        square = _square_distances(positions, padded, rows)  # [rows, columns]
        furthest = square.topk(min(k, columns), dim=1, largest=False).values[:, -1:]
        closer, tied = square < furthest, square == furthest
        keep = closer | (tied & (tied.cumsum(1) <= k - closer.sum(1, keepdim=True)))
        row, column = (keep & square.isfinite()).nonzero().unbind(1)
        found.append((column + ptr[rows.batch[row]], row + rows.start))
    return _concatenate(found)


def periodic_pairs(
    positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, lattice: Lattice
) -> tuple[Tensor, Tensor, Tensor]:
    """Senders, receivers and shifts that contain all pairs closer than the cutoff, sorted, and few others.

    Nodes are brought into their cell, each pair to its nearest image, and from there only as many
    images are tried as the spacing of the lattice planes makes possible. That is done in float32, whose rounding is
    allowed for: a pair too many does no harm.
    """
    columns, images = largest_graph(ptr), _images(lattice, cutoff)
    fractions = to_fractional(positions, batch, lattice)
    home_cell = fractions.floor()  # [N, 3]
    home = positions.double() - to_cartesian(home_cell, batch, lattice)
    home -= home.index_select(0, ptr.index_select(0, batch))  # small numbers, far from the origin too
    inside = torch.cat([home, fractions - home_cell], dim=1).float()  # [N, 6]
    rounding = candidate_radius(inside[:, :3], ptr, batch, cutoff, lattice) - cutoff
    radius = candidate_radius(positions, ptr, batch, cutoff, lattice) + rounding  # [G]
    limit, vectors = radius.square().float(), lattice.vectors.float()
    padded = _pad(inside, batch, ptr, columns)
    offsets = (images.to(vectors.dtype) @ vectors).permute(2, 0, 1).contiguous()  # [3, G, K]
    open_direction = lattice.reciprocal.abs().sum(1) == 0  # [G, 3]
    offsets[:, ((images != 0) & open_direction.unsqueeze(1)).any(-1)] = torch.inf
    # The longer of the two is the inner one, in which a CPU computes many numbers at once.
    of_pair, of_image = (1, 2) if columns >= len(images) else (2, 1)
    found: list[tuple[Tensor, ...]] = []
    for rows in _rows(batch, ptr, columns * len(images)):
        own = inside[rows.start : rows.stop].T.unsqueeze(-1)  # [6, rows, 1]
        # Past the end of a graph this is infinite, and NaN from there on, which is not below the radius either.
        nearest = [(own[3 + k] - padded[3 + k].index_select(0, rows.batch)).round_() for k in range(3)]
        cells = vectors.index_select(0, rows.batch).unsqueeze(-1)  # [rows, 3, 3, 1]
        square = vectors.new_zeros(())
        for x in range(3):
            vector = padded[x].index_select(0, rows.batch).sub_(own[x])
            for k in range(3):
                vector.addcmul_(nearest[k], cells[:, k, x])
            offset = offsets[x].index_select(0, rows.batch).unsqueeze(of_image)
            part = vector.unsqueeze(of_pair) + offset  # [rows, K, columns] or [rows, columns, K]
            square = part.square_().add_(square)
        close = square < limit.index_select(0, rows.batch)[:, None, None]
        row, column, image = close.movedim(3 - of_pair, 1).nonzero().unbind(1)
        pair = row * columns + column
        sender = column + ptr.index_select(0, rows.batch).index_select(0, row)
        receiver = row + rows.start
        shift = torch.stack([n.view(-1).index_select(0, pair) for n in nearest], dim=1)
        shift = shift.double() + images.index_select(0, image)
        found.append(
            (sender, receiver, shift + home_cell.index_select(0, receiver) - home_cell.index_select(0, sender))
        )
    sender, receiver, shift = _concatenate(found)
    other = ((sender != receiver) | (shift != 0).any(1)).nonzero().squeeze(1)
    shift = shift.index_select(0, other).to(positions.dtype)
    return sender.index_select(0, other), receiver.index_select(0, other), shift


def _images(lattice: Lattice, cutoff: float) -> Tensor:
    """Shifts [K, 3] within the cutoff of the nearest image in any of the graphs, in lexicographic order."""
    ranges = image_ranges(lattice, cutoff)
    return torch.cartesian_prod(*(torch.arange(-n, n + 1, device=lattice.vectors.device) for n in ranges))


def _concatenate(found: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return found[0] if len(found) == 1 else tuple(torch.cat(parts) for parts in zip(*found))
