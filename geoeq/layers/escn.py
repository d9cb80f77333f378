"""Equivariant spherical channel network layer."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geoeq.errors import InputError, TensorError
from geoeq.graph import Graph, edge_frames
from geoeq.layers.edge_frames.escn_message import ESCNMessage, keep_variance
from geoeq.layers.edge_frames.so2 import frame_matrix
from geoeq.layers.irreps.coefficients import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.layer import Group, Layer
from geoeq.layers.sphere.s2_grid import Normalization, S2Grid

__all__ = ["ESCNLayer"]


class ESCNLayer(Layer):
    """One round of eSCN: messages by SO(2) convolutions in the frame of each edge, then a network on the sphere.

    ``x_i <- x_i + W_3 SiLU(W_2 SiLU(W_1 (x_i | m_i)))`` at every point of the sphere, with the messages m of
    ``ESCNMessage``. Symmetric to an error that falls with the resolution of the grids.

    Args:
        lmax, mmax: highest degree of the features, and highest order in the frames of edges.
        channels: number C of channels of every degree.
        hidden: number of hidden channels of messages.
        edge_channels: number of invariants of an edge.
        edge_width: number A of edge attributes in ``graph.edge_attr``.
        elements: messages depend on the elements at both ends, ``graph.numbers``.
        resolution: latitudes and longitudes of the grids, an even number; None as published, the smallest.
        normalization: of the values on the grids, as for ``S2Grid``; "integral" as published.
        average_degree: what the sum over neighbours is divided by; 1 as published.
        residual: add the input.
        cutoff: in Å; messages then fall smoothly to zero there. None: as published.

    Shapes:
        x: [N, C (lmax + 1)²], irreps ``Cx0e + Cx1o + Cx2e + ...``. Returns the same.

    Raises:
        InputError: mmax is not between 0 and lmax, or the grid is too small.
        TensorError: x, or the edge attributes of the graph, have another width, or elements are missing.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655. Differs: with a cutoff, an envelope; derivatives
        go through the frames, which the published code detaches; values on the grids are of the size of the
        coefficients, not smaller by ``sqrt(4π)``. W_1 and W_3 are applied to coefficients, which is
        the same in exact arithmetic and has fewer rows.
    """

    group: Group = "SE(3)"
    #: of the example
    equivariance_error = 1e-5

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        hidden: int,
        edge_channels: int,
        edge_width: int,
        elements: bool = True,
        resolution: int | None = None,
        normalization: Normalization = "component",
        average_degree: float = 1.0,
        residual: bool = True,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        if edge_width < 1:
            raise InputError("ESCNLayer needs edge attributes, such as a radial basis: edge_width is at least 1.")
        self.lmax, self.mmax, self.channels = lmax, mmax, channels
        self.edge_width, self.residual = edge_width, residual
        self.irreps_in = self.irreps_out = sphere_irreps(lmax, channels)
        self.dim = self.irreps_in.dim  # torch.compile cannot read Irreps
        self.message = ESCNMessage(
            lmax,
            mmax,
            channels,
            hidden,
            edge_channels,
            edge_width,
            elements,
            resolution,
            normalization,
            average_degree,
            cutoff,
        )
        self.grid = S2Grid(lmax, lmax, resolution, normalization, rescale=False)
        self.first = nn.Linear(2 * channels, channels, bias=False)
        self.second = nn.Linear(channels, channels, bias=False)
        self.last = nn.Linear(channels, channels, bias=False)
        for linear in (self.first, self.second, self.last):
            keep_variance(linear)

    @classmethod
    def example(cls) -> Self:
        return cls(2, 1, channels=1, hidden=3, edge_channels=4, edge_width=4, resolution=30, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        if x.shape[-1] != self.dim:
            raise TensorError(f"ESCNLayer: x has {x.shape[-1]} columns and {self.dim} are needed.")
        frame = frame_matrix(edge_frames(graph, self.lmax), self.lmax, self.mmax).to(x.dtype)
        return from_coefficients(self.on_sphere(to_coefficients(x, self.lmax, self.channels), graph, frame), self.lmax)

    def on_sphere(self, sphere: Tensor, graph: Graph, frame: Tensor) -> Tensor:
        """``forward`` for channels last, [N, (lmax + 1)², C], with the ``frame_matrix`` of the graph."""
        update: Tensor = self.first(torch.cat([sphere, self.message(sphere, graph, frame)], dim=-1))
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # The values on the grid, many for each coefficient, are computed again for derivatives, and not kept.
            update = checkpoint(self._on_grid, update, use_reentrant=False, preserve_rng_state=False)
        else:
            update = self._on_grid(update)
        update = self.last(update)
        return sphere + update if self.residual else update

    def _on_grid(self, sphere: Tensor) -> Tensor:
        silu = nn.functional.silu
        return self.grid.project(silu(self.second(silu(self.grid.sample(sphere)))))
