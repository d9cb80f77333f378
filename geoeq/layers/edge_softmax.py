"""Attention over the edges into a node."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq import kernels
from geoeq.graph import Graph

__all__ = ["edge_softmax"]


def edge_softmax(scores: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
    """Softmax over the edges into each node, smooth as an edge passes the cutoff.

    With ``f`` the envelope of an edge, ``a_e = f_e² exp(s_e) / Σ f exp(s)`` (sum over the edges into its node): a
    vanishing edge leaves the sum and its own weight continuously, even where it is the node's last.

    Args:
        scores: s, of each edge, for each of H heads.
        graph: whose edges they are.
        envelope: 1 near, 0 with its derivative at the cutoff. None: the plain softmax.

    Shapes:
        scores: [E, H]. envelope: [E, 1]. Returns [E, H].
    """
    if envelope is None:
        return kernels.segment_softmax(scores, graph)
    largest = kernels.segment_max(scores.detach(), graph)  # [N, H]
    weights = (scores - kernels.gather(largest, graph.receiver)).exp() * envelope
    # Far above the smallest number, so that its cube in second derivatives is still one.
    total = kernels.segment_sum(weights, graph).clamp(min=torch.finfo(scores.dtype).tiny ** 0.25)
    return weights / kernels.gather(total, graph.receiver) * envelope
