"""Normalisations of features of any irreps: every degree by itself, all together, with centred scalars or not."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.graph import Graph
from geoeq.layers.irreps.layout import irreps_blocks
from geoeq.layers.layer import Layer, Rowwise

__all__ = ["DegreeNorm", "EquivariantGraphNorm", "EquivariantLayerNorm", "EquivariantNorm", "EquivariantRMSNorm"]


class EquivariantNorm(Rowwise):
    """What the normalisations share: blocks, and a learned scale of each copy with a bias of the scalars.

    Args:
        irreps: of input and output.
        eps: added to mean squares, so that zero features have finite derivatives.
        affine: learn a scale for each copy of an irrep, and a bias for each scalar (0e).
    """

    def __init__(self, irreps: o3.Irreps | str, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.irreps_in = self.irreps_out = o3.Irreps(irreps)
        self.blocks, self.eps = irreps_blocks(self.irreps_in), eps
        self.scalar = tuple(ir == o3.Irrep("0e") for _, ir in self.irreps_in)
        self.scale = nn.Parameter(torch.ones(self.irreps_in.num_irreps)) if affine else None
        self.bias = nn.Parameter(torch.zeros(self.irreps_in.count("0e"))) if affine else None

    @classmethod
    def example(cls) -> Self:
        norm = cls("4x0e + 2x0o + 3x1o + 2x2e", eps=1e-2)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        return norm

    def split(self, x: Tensor) -> list[Tensor]:
        """[N, irreps.dim] to [N, U, 2 l + 1] of each block."""
        parts = x.split([dim * channels for dim, channels in self.blocks], dim=-1)
        shapes = [(channels, dim) for dim, channels in self.blocks]
        return [part.reshape(part.shape[0], *shape) for part, shape in zip(parts, shapes, strict=True)]

    def scaled(self, parts: list[Tensor]) -> Tensor:
        """Learned scale and bias, and one row again."""
        sizes = [channels for _, channels in self.blocks]
        if self.scale is not None and self.bias is not None:
            scales = [scale.unsqueeze(-1) for scale in self.scale.split(sizes)]
            parts = [part * scale for part, scale in zip(parts, scales, strict=True)]
            biases = iter(self.bias.split([size for size, scalar in zip(sizes, self.scalar, strict=True) if scalar]))
            parts = [p + next(biases).unsqueeze(-1) if s else p for p, s in zip(parts, self.scalar, strict=True)]
        return torch.cat([part.flatten(1) for part in parts], dim=-1)


class DegreeNorm(EquivariantNorm):
    """Each block of an irrep over its own root mean square, ``x / sqrt(mean x² + ε)`` over copies and components.

    Args:
        irreps, eps, affine: as for ``EquivariantNorm``.

    Shapes:
        x: [N, irreps.dim]. Returns the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = self.split(x)
        return self.scaled([part * (part.square().mean((1, 2), keepdim=True) + self.eps).rsqrt() for part in parts])


class EquivariantLayerNorm(EquivariantNorm):
    """As ``DegreeNorm``, after the mean over the copies is taken from the scalars (0e).

    Args:
        irreps, eps, affine: as for ``EquivariantNorm``.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.1.
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            part - part.mean(1, keepdim=True) if scalar else part
            for part, scalar in zip(self.split(x), self.scalar, strict=True)
        ]
        return self.scaled([part * (part.square().mean((1, 2), keepdim=True) + self.eps).rsqrt() for part in parts])


class EquivariantRMSNorm(EquivariantNorm):
    """All features over one root mean square, in which every block counts the same, whatever its size.

    The sizes of the degrees relative to each other are kept.

    Args:
        irreps, eps, affine: as for ``EquivariantNorm``.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Source:
        Zhang & Sennrich, NeurIPS 2019, arXiv:1910.07467; balanced over degrees as in Liao et al., ICLR 2024,
        arXiv:2306.12059, section 4.3.
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = self.split(x)
        square = torch.stack([part.square().mean((1, 2)) for part in parts], dim=-1).mean(-1)  # [N]
        factor = (square + self.eps).rsqrt()[:, None, None]
        return self.scaled([part * factor for part in parts])


class EquivariantGraphNorm(Layer):
    """Each copy of an irrep over its root mean square over the nodes of its graph, scalars (0e) centred before.

    Args:
        irreps: of input and output.
        eps: added to mean squares.
        affine: learn a scale for each copy, and a bias for each scalar.
        shift: learn how much of the mean is taken from a scalar ("graph norm"); without, all of it ("instance norm").

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Source:
        Cai et al., ICML 2021, arXiv:2009.03294; for irreps Brandstetter et al., ICLR 2022, arXiv:2110.02905.
    """

    def __init__(self, irreps: o3.Irreps | str, eps: float = 1e-5, affine: bool = True, shift: bool = True) -> None:
        super().__init__()
        self.norm = EquivariantLayerNorm(irreps, eps, affine)  # for its parts and its scale
        self.irreps_in = self.irreps_out = self.norm.irreps_in
        self.shift = nn.Parameter(torch.ones(self.irreps_in.count("0e"))) if shift else None

    @classmethod
    def example(cls) -> Self:
        norm = cls("4x0e + 2x0o + 3x1o + 2x2e")
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        return norm

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        result, start = [], 0
        for part, scalar in zip(self.norm.split(x), self.norm.scalar, strict=True):  # [N, U, 2 l + 1]
            if scalar:
                mean = self._mean(part, graph)
                if self.shift is not None:
                    mean = mean * self.shift[start : start + part.shape[1]].unsqueeze(-1)
                    start += part.shape[1]
                part = part - mean
            square = self._mean(part.square().mean(-1, keepdim=True), graph)  # [N, U, 1]
            result.append(part * (square + self.norm.eps).rsqrt())
        return self.norm.scaled(result)

    def _mean(self, values: Tensor, graph: Graph) -> Tensor:
        return kernels.gather(kernels.segment_mean(values, graph.batch, graph.num_graphs), graph.batch)
