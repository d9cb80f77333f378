"""Convolution by a tensor product with harmonics, with weights as input."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.constants import default_dtype
from geoeq.errors import InputError
from geoeq.graph import Graph
from geoeq.kernels import Mode
from geoeq.layers.irreps.layout import (
    flatten_blocks,
    irreps_blocks,
    split_blocks,
    to_channels_last,
    to_e3nn_layout,
)
from geoeq.layers.layer import Group, check_width
from geoeq.layers.products.tensor_paths import depthwise_paths, fully_connected_paths, harmonics_group

__all__ = ["TensorProductConv"]


class TensorProductConv(nn.Module):
    """Tensor product of the senders' features with harmonics of the edges, weighted per path, summed at the receivers.

    ``out_iuk = Σ_{edges j→i} Σ_ml C_mlk x_jum Y_l(r_ij) w_ij,u``, in one call to ``geoeq.kernels``.

    Args:
        irreps_in: irreps of the features.
        irreps_harmonics: irreps of the harmonics, one of each degree, for example "0e + 1o + 2e". A parity other than
            (-1)^l (such as "1e") breaks the symmetry under reflections, and ``group`` is "SE(3)".
        irreps_out: with "uvw" the irreps of the result. With "uvu" the irreps to keep, whatever their multiplicity: the
            result has the U channels of every path, and the attribute ``irreps_out`` holds its irreps, sorted and
            simplified as by e3nn.
        mode: "uvu": depthwise, a weight for each channel and path; "uvw": fully connected.

    Shapes:
        x: [N, irreps_in.dim]; weights: [E, weight_numel], in e3nn's order of instructions.
        Returns [N, irreps_out.dim].

    Raises:
        InputError: the mode is unknown, a degree has several harmonics, or no path reaches one of irreps_out.
        TensorError: x, the weights or the harmonics of the graph have the wrong width.

    Source:
        Thomas et al. 2018, arXiv:1802.08219, section 4.1; "uvu" as in Batzner et al. 2022, arXiv:2101.03164.
        Normalized like ``e3nn.o3.TensorProduct`` by default: "component", path normalisation "element".

    Attributes:
        irreps_in, irreps_harmonics, irreps_out, weight_numel, group.
        paths: description of the product for ``geoeq.kernels``.
    """

    group: Group
    dtype_like: Tensor

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_harmonics: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        mode: Mode = "uvu",
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_harmonics = o3.Irreps(irreps_in), o3.Irreps(irreps_harmonics)
        self.group, self.mode = harmonics_group(self.irreps_harmonics), mode
        irreps_out = o3.Irreps(irreps_out)
        if mode == "uvu":
            keep = [ir for _, ir in irreps_out]
            self.paths, self.irreps_out = depthwise_paths(self.irreps_in, self.irreps_harmonics, keep)
        elif mode == "uvw":
            self.paths = fully_connected_paths(self.irreps_in, self.irreps_harmonics, irreps_out)
            self.irreps_out = irreps_out
        else:
            raise InputError(f"mode must be 'uvu' or 'uvw', not {mode!r}.")
        self.weight_numel = self.paths.weight_numel
        self.register_buffer("dtype_like", torch.empty(0), persistent=False)  # the dtype of to_e3nn
        self.blocks_in, self.blocks_out = irreps_blocks(self.irreps_in), irreps_blocks(self.irreps_out)

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 3x1o + 2x2e", "0e + 1o + 2e", "0e + 1o + 1e + 2e")

    def forward(self, x: Tensor, weights: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.paths.x_dim, "TensorProductConv")
        rows = flatten_blocks(to_channels_last(x, self.blocks_in))
        out = kernels.tensor_product_conv(rows, graph.harmonics, weights, graph, self.paths)
        return to_e3nn_layout(split_blocks(out, self.blocks_out))

    def to_e3nn(self) -> o3.TensorProduct:
        """Return e3nn's module for the same product on each edge, ``product(x[sender], harmonics, weights)``.

        Its harmonics are only those of irreps_harmonics. Its dtype is that of this module (``conv.double()``).
        """
        paths = self.paths.paths
        harmonics = [ir.l for _, ir in self.irreps_harmonics]
        if self.mode == "uvw":
            irreps_out, slots = self.irreps_out, [path.out_block for path in paths]
        else:  # e3nn needs one output entry per path
            order = sorted(range(len(paths)), key=lambda n: (paths[n].out_block, paths[n].out_channel))
            irreps_out = o3.Irreps([(paths[n].out_channels, self.irreps_out[paths[n].out_block].ir) for n in order])
            slots = [order.index(n) for n in range(len(paths))]
        instructions = [
            (path.x_block, harmonics.index(path.degrees[1]), slot, self.mode, True)
            for path, slot in zip(paths, slots, strict=True)
        ]
        with default_dtype(self.dtype_like.dtype):
            return o3.TensorProduct(
                self.irreps_in,
                self.irreps_harmonics,
                irreps_out,
                instructions,
                shared_weights=False,
                internal_weights=False,
            )
