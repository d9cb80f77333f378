"""Normalizations of features of any irreps: per degree or all degrees together, per node or per graph."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import check_positive
from geoeq.graph import Graph
from geoeq.layers.irreps.layout import irreps_blocks
from geoeq.layers.layer import Layer, Rowwise

__all__ = ["DegreeNorm", "EquivariantGraphNorm", "EquivariantLayerNorm", "EquivariantNorm", "EquivariantRMSNorm"]


class EquivariantNorm(Rowwise):
    """Base class of normalizations: split into blocks, and a learned scale of each copy with a bias of the scalars.

    Args:
        irreps: irreps of the input and the output.
        eps: constant added to mean squares, so that zero features have finite derivatives.
        affine: whether to learn a scale for each copy of an irrep, and a bias for each scalar (0e).

    Raises:
        InputError: a number is out of range.
    """

    def __init__(self, irreps: o3.Irreps | str, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        check_positive(self, eps=eps)
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
        """Split features [N, irreps.dim] into blocks [N, U, 2 l + 1]."""
        parts = x.split([dim * channels for dim, channels in self.blocks], dim=-1)
        shapes = [(channels, dim) for dim, channels in self.blocks]
        return [part.reshape(part.shape[0], *shape) for part, shape in zip(parts, shapes, strict=True)]

    def scale_and_join(self, parts: list[Tensor]) -> Tensor:
        """Apply the learned scale and bias, and join the blocks to [N, irreps.dim]."""
        sizes = [channels for _, channels in self.blocks]
        if self.scale is not None and self.bias is not None:
            scales = [scale.unsqueeze(-1) for scale in self.scale.split(sizes)]
            parts = [part * scale for part, scale in zip(parts, scales, strict=True)]
            biases = iter(self.bias.split([size for size, scalar in zip(sizes, self.scalar, strict=True) if scalar]))
            parts = [p + next(biases).unsqueeze(-1) if s else p for p, s in zip(parts, self.scalar, strict=True)]
        return torch.cat([part.flatten(1) for part in parts], dim=-1)


class DegreeNorm(EquivariantNorm):
    """Divide each block of an irrep by its root mean square, ``x / sqrt(mean x² + ε)`` over copies and components.

    In a symmetric structure, blocks that vanish by symmetry contain rounding errors, which are multiplied by 1/sqrt(ε):
    see ``EquivariantLayerNorm``.

    Args:
        irreps, eps, affine: as for ``EquivariantNorm``.

    Shapes:
        x: [N, irreps.dim]. Returns the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        parts = self.split(x)
        return self.scale_and_join(
            [part * (part.square().mean((1, 2), keepdim=True) + self.eps).rsqrt() for part in parts]
        )


class EquivariantLayerNorm(EquivariantNorm):
    """``DegreeNorm`` after subtracting from the scalars (0e) their mean over the copies.

    **Unstable in deep networks.** Where the symmetry of a structure makes a degree vanish, as vectors at the central
    atom of CH4, the block contains rounding errors, and each norm multiplies them and their derivatives by 1/sqrt(ε),
    about 300. After six blocks energies are wrong and forces reach 1e15 eV/Å. ``EquivariantRMSNorm`` has one factor for
    all degrees, so it never enlarges an error relative to the scalars, which do not vanish.

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
        return self.scale_and_join(
            [part * (part.square().mean((1, 2), keepdim=True) + self.eps).rsqrt() for part in parts]
        )


class EquivariantRMSNorm(EquivariantNorm):
    """Divide all features by one root mean square, in which each block has the same weight.

    The relative norms of the degrees are preserved: what vanishes by symmetry, up to rounding, remains as small
    relative to the scalars as it was, however many norms follow each other.

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
        return self.scale_and_join([part * factor for part in parts])


class EquivariantGraphNorm(Layer):
    """Divide each copy of an irrep by its root mean square over the nodes of its graph, after centring scalars (0e).

    **Unstable in deep networks.** In a crystal of equivalent atoms, centred scalars vanish, and often all vectors do:
    their rounding errors, and displacements of the atoms, are multiplied by 1/sqrt(ε), see ``EquivariantLayerNorm``.

    Args:
        irreps: irreps of the input and the output.
        eps: constant added to mean squares.
        affine: whether to learn a scale for each copy, and a bias for each scalar.
        shift: whether to learn the share of the mean that is subtracted from a scalar ("graph norm"); otherwise the
            whole mean is subtracted ("instance norm").

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: a number is out of range.

    Source:
        Cai et al., ICML 2021, arXiv:2009.03294; for irreps Brandstetter et al., ICLR 2022, arXiv:2110.02905.
    """

    def __init__(self, irreps: o3.Irreps | str, eps: float = 1e-5, affine: bool = True, shift: bool = True) -> None:
        super().__init__()
        check_positive(self, eps=eps)
        self.norm = EquivariantLayerNorm(irreps, eps, affine)  # provides split and scale_and_join
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
        return self.norm.scale_and_join(result)

    def _mean(self, values: Tensor, graph: Graph) -> Tensor:
        return kernels.gather(kernels.segment_mean(values, graph.batch, graph.num_graphs), graph.batch)
