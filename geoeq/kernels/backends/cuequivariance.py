"""Convolutions by NVIDIA's package cuEquivariance (extra ``cuequivariance``): the only file that imports it."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from geoeq.errors import MissingExtraError
from geoeq.kernels.backends.reference import Backend
from geoeq.kernels.paths import Path, Paths, coupling
from geoeq.kernels.segments import EdgeTensors
from geoeq.resources import import_extra

__all__ = ["CuEquivariance"]


@functools.cache
def _modules() -> tuple[ModuleType, ModuleType]:
    return import_extra("cuequivariance", "cuequivariance"), import_extra("cuequivariance_torch", "cuequivariance")


@functools.cache
def _product(paths: Paths, device: torch.device) -> tuple[Any, Tensor]:
    """Return cuEquivariance's module for the paths, and the index of each column of ``Paths`` in its result.

    Its operands weights, features and harmonics have geoeq's layout. Its output segments are contiguous: each range of
    channels of an output block that paths write to is a segment.
    """
    cue, cuet = _modules()
    product = cue.SegmentedTensorProduct.from_subscripts("u,iu,j,ku+ijk")
    for path in paths.paths:
        product.add_segment(0, (path.x_channels,))
    for dim, channels in paths.x_blocks:
        product.add_segment(1, (dim, channels))
    degrees = range(max(path.degrees[1] for path in paths.paths) + 1)
    for degree in degrees:
        product.add_segment(2, (2 * degree + 1,))
    targets = sorted({_target(path) for path in paths.paths})
    for block, _, channels in targets:
        product.add_segment(3, (paths.out_blocks[block][0], channels))
    for n, path in enumerate(paths.paths):
        c = (path.coefficient * coupling(*path.degrees)).numpy()
        product.add_path(n, path.x_block, path.degrees[1], targets.index(_target(path)), c=c)
    uniform = len({path.x_channels for path in paths.paths}) == 1
    method = "uniform_1d" if device.type == "cuda" and uniform else "naive"
    if method == "uniform_1d":
        product = product.flatten_coefficient_modes()
    polynomial = cue.SegmentedPolynomial.eval_last_operand(product)
    return cuet.SegmentedPolynomial(polynomial, method=method).to(device), _columns(paths, targets).to(device)


def _target(path: Path) -> tuple[int, int, int]:
    return path.out_block, path.out_channel, path.out_channels


def _columns(paths: Paths, targets: list[tuple[int, int, int]]) -> Tensor:
    blocks = [torch.zeros(block, dtype=torch.int64) for block in paths.out_blocks]
    start = 0
    for block, first, channels in targets:
        dim = paths.out_blocks[block][0]
        columns = torch.arange(start, start + dim * channels).view(dim, channels)
        blocks[block][:, first : first + channels] = columns
        start += dim * channels
    return torch.cat([block.flatten() for block in blocks])


class CuEquivariance(Backend):
    """Convolutions for comparison: cuEquivariance's kernels on a GPU, its plain method elsewhere; used only if forced.

    The reference computes sums and products of rows.
    """

    name = "cuequivariance"

    def available(self) -> str | None:
        try:
            _modules()
        except MissingExtraError as error:
            return str(error)
        return None

    def supports(self, values: Tensor) -> bool:
        return False

    def tensor_product_conv(
        self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        # cuEquivariance refuses an empty batch, and torch.compile cannot trace it.
        depthwise = all(path.mode == "uvu" for path in paths.paths)
        if not depthwise or torch.compiler.is_compiling() or not edges.sender.numel():
            return super().tensor_product_conv(x, harmonics, weights, edges, paths)
        module, columns = _product(paths, x.device)
        inputs = [weights, x, harmonics[:, : paths.harmonics_dim].contiguous()]
        (out,) = module(inputs, {1: edges.sender}, {0: x}, {0: edges.receiver})
        result: Tensor = out.index_select(1, columns)
        return result
