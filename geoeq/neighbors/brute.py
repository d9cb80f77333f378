"""Every pair of every graph at once: each receiver is a row, the nodes of its graph are padded columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.lattice import Lattice

__all__ = ["count_pairs", "image_ranges", "nearest_pairs", "open_pairs", "periodic_pairs"]

#: Distances held at a time: small enough for the caches of a CPU, large enough to hide launches on a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**19, 2**24

#: Fractional coordinates are this precise; more images than necessary do no harm.
FRACTION_MARGIN = 1e-3


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
    square = (padded[0][rows.batch] - center[0]).square_()
    square += (padded[1][rows.batch] - center[1]).square_()
    square += (padded[2][rows.batch] - center[2]).square_()
    return square.scatter_(1, rows.local.unsqueeze(1), torch.inf)


def _columns(ptr: Tensor) -> int:
    return int((ptr[1:] - ptr[:-1]).max()) if len(ptr) > 1 else 0


def open_pairs(positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Senders and receivers closer than the cutoff, sorted, where nothing is periodic."""
    columns = _columns(ptr)
    padded = _pad(positions, batch, ptr, columns)
    found = []
    for rows in _rows(batch, ptr, columns):
        close = _square_distances(positions, padded, rows).sqrt_() < cutoff
        row, column = close.nonzero().unbind(1)
        found.append((column + ptr[rows.batch[row]], row + rows.start))
    return _concatenate(found, ptr)


def nearest_pairs(positions: Tensor, ptr: Tensor, batch: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Senders and receivers of the k nearest nodes of each node; of equally near ones the first come."""
    columns = _columns(ptr)
    padded = _pad(positions, batch, ptr, columns)
    found = []
    for rows in _rows(batch, ptr, columns):
        square = _square_distances(positions, padded, rows)  # [rows, columns]
        furthest = square.topk(min(k, columns), dim=1, largest=False).values[:, -1:]
        closer, tied = square < furthest, square == furthest
        keep = closer | (tied & (tied.cumsum(1) <= k - closer.sum(1, keepdim=True)))
        row, column = (keep & square.isfinite()).nonzero().unbind(1)
        found.append((column + ptr[rows.batch[row]], row + rows.start))
    return _concatenate(found, ptr)


def _concatenate(found: list[tuple[Tensor, Tensor]], ptr: Tensor) -> tuple[Tensor, Tensor]:
    if len(found) == 1:
        return found[0]
    empty = ptr.new_empty(0)
    return torch.cat([empty, *(s for s, _ in found)]), torch.cat([empty, *(r for _, r in found)])
