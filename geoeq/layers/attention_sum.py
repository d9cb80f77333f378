"""Messages out of the frames of edges, weighed and summed at the receivers, some edges at a time."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from geoeq import kernels
from geoeq.layers.in_chunks import in_chunks

__all__ = ["attention_sum", "turned_sum"]

#: edges at a time, so that what is turned back stays in a cache of some MB.
CHUNK = 512


def turned_sum(values: Tensor, weights: Tensor, frame: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
    """As ``attention_sum``, of all edges at once."""
    turned = torch.bmm(frame.transpose(1, 2), values * weights.unsqueeze(1))  # [E, K, C]
    return kernels.segment_sum(turned, receiver, num_nodes)


def attention_sum(values: Tensor, weights: Tensor, frame: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
    """``Σ_e weights_e frame_e^T values_e`` at each receiver; only the arguments are kept for derivatives of any order.

    Shapes:
        values: [E, R, C]. weights: [E, C]. frame: [E, R, K]. receiver: [E]. Returns [num_nodes, K, C].
    """
    total = partial(turned_sum, num_nodes=num_nodes)
    return in_chunks(total, [values, weights, frame, receiver], [], CHUNK, summed=True)
