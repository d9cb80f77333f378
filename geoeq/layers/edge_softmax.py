"""Softmax over the edges into each node."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq import kernels
from geoeq.graph import Graph

__all__ = ["edge_softmax"]


def edge_softmax(scores: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
    """Compute the softmax over the edges into each node, smooth as an edge crosses the cutoff.

    With ``f`` the envelope, ``a_e = f_e² exp(s_e) / Σ f exp(s)``, summed over the edges into the same node. A vanishing
    edge leaves the sum continuously, and so does its own weight, even where it is the last edge into its node.

    Args:
        scores: attention scores s of each edge, one per head.
        graph: graph of these edges.
        envelope: envelope f, which vanishes at the cutoff together with its derivative. None: the plain softmax.

    Shapes:
        scores: [E, H]. envelope: [E, 1]. Returns [E, H].
    """
    if envelope is None:
        return kernels.segment_softmax(scores, graph)
    largest = kernels.segment_max(scores.detach(), graph)  # [N, H]
    weights = (scores - kernels.gather(largest, graph.receiver)).exp() * envelope
    # The bound is the fourth root of the smallest number, because second derivatives contain the cube of the total.
    total = kernels.segment_sum(weights, graph).clamp(min=torch.finfo(scores.dtype).tiny ** 0.25)
    return weights / kernels.gather(total, graph.receiver) * envelope
