"""Messages out of the frames of edges, weighed and summed at the receivers, some edges at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.layers.chunked import chunked

__all__ = ["attention_sum", "turned"]

#: edges at a time, so that what is turned back stays in a cache of some MB.
CHUNK = 512


def turned(values: Tensor, weights: Tensor, frame: Tensor) -> Tensor:
    """``weights_e frame_e^T values_e`` of all edges at once, [E, K, C]. Shapes as for ``attention_sum``."""
    return torch.bmm(frame.transpose(1, 2), values * weights.unsqueeze(1))


def attention_sum(values: Tensor, weights: Tensor, frame: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
    """``Σ_e weights_e frame_e^T values_e`` at each receiver; only the arguments are kept for derivatives of any order.

    Shapes:
        values: [E, R, C]. weights: [E, C]. frame: [E, R, K]. receiver: [E]. Returns [num_nodes, K, C].
    """
    return chunked(turned, [values, weights, frame], [], CHUNK, target=(receiver, num_nodes))
