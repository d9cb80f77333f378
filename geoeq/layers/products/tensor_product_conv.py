"""Convolution by a tensor product with harmonics and given weights."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.constants import default_dtype
from geoeq.errors import InputError, TensorError
from geoeq.graph import Graph
from geoeq.kernels import Mode
from geoeq.layers.irreps.layout import irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.layer import Group
from geoeq.layers.products.tensor_paths import depthwise_paths, fully_connected_paths, harmonics_group

__all__ = ["TensorProductConv"]


class TensorProductConv(nn.Module):
    """Features of the senders times harmonics of the edges, with a weight for each path, summed at the receivers.

    ``out_iuk = Σ_{edges j→i} Σ_ml C_mlk x_jum Y_l(r_ij) w_ij,u``, all in one call to ``geoeq.kernels``.

    Args:
        irreps_in: of the features.
        irreps_harmonics: the harmonics that are used, one of each degree, for example "0e + 1o + 2e". With another
            parity than (-1)^l (as "1e") reflections are not respected, and ``group`` says "SE(3)".
        irreps_out: with "uvw" the irreps of the result. With "uvu" which irreps are kept, whatever their
            multiplicity: the result has every path's U channels, and the attribute ``irreps_out`` is what there is,
            sorted and simplified as by e3nn.
        mode: "uvu": each channel by itself, a weight for each channel and path; "uvw": fully connected.

    Shapes:
        x: [N, irreps_in.dim]; weights: [E, weight_numel], in e3nn's order of instructions.
        Returns [N, irreps_out.dim].

    Raises:
        InputError: the mode is unknown, a degree has several harmonics, or no path reaches one of irreps_out.
        TensorError: x, the weights or the harmonics of the graph have another width.

    Source:
        Thomas et al. 2018, arXiv:1802.08219, section 4.1; "uvu" as in Batzner et al. 2022, arXiv:2101.03164.
        Normalised as ``e3nn.o3.TensorProduct`` by default: "component", path normalisation "element".

    Attributes:
        irreps_in, irreps_harmonics, irreps_out, weight_numel, group.
        paths: what ``geoeq.kernels`` is told.
    """

    group: Group
    like: Tensor

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
        wanted = o3.Irreps(irreps_out)
        if mode == "uvu":
            keep = [ir for _, ir in wanted]
            self.paths, self.irreps_out = depthwise_paths(self.irreps_in, self.irreps_harmonics, keep)
        elif mode == "uvw":
            self.paths, self.irreps_out = fully_connected_paths(self.irreps_in, self.irreps_harmonics, wanted), wanted
        else:
            raise InputError(f"mode must be 'uvu' or 'uvw', not {mode!r}.")
        self.weight_numel = self.paths.weight_numel
        self.register_buffer("like", torch.empty(0), persistent=False)  # the dtype of what to_e3nn makes
        self.blocks_in, self.blocks_out = irreps_blocks(self.irreps_in), irreps_blocks(self.irreps_out)

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 3x1o + 2x2e", "0e + 1o + 2e", "0e + 1o + 1e + 2e")

    def forward(self, x: Tensor, weights: Tensor, graph: Graph) -> Tensor:
        if x.shape[-1] != self.paths.x_dim:
            raise TensorError(f"TensorProductConv: x has {x.shape[-1]} columns and {self.paths.x_dim} are needed.")
        rows = torch.cat([block.flatten(1) for block in to_channels_last(x, self.blocks_in)], dim=-1)
        out = kernels.tensor_product_conv(rows, graph.harmonics, weights, graph, self.paths)
        parts = out.split([dim * channels for dim, channels in self.blocks_out], dim=-1)
        shaped = [part.reshape(-1, *block) for part, block in zip(parts, self.blocks_out, strict=True)]
        return to_e3nn_layout(shaped)

    def to_e3nn(self) -> o3.TensorProduct:
        """The same product of one edge, by e3nn: ``product(x[sender], harmonics, weights)``, to be summed.

        Its harmonics are those of irreps_harmonics alone. Its dtype is that of this module (``conv.double()``).
        """
        paths = self.paths.paths
        harmonics = [ir.l for _, ir in self.irreps_harmonics]
        if self.mode == "uvw":
            irreps_out, slots = self.irreps_out, [path.out_block for path in paths]
        else:  # e3nn wants an output entry of its own for each path
            order = sorted(range(len(paths)), key=lambda n: (paths[n].out_block, paths[n].out_channel))
            irreps_out = o3.Irreps([(paths[n].out_channels, self.irreps_out[paths[n].out_block].ir) for n in order])
            slots = [order.index(n) for n in range(len(paths))]
        instructions = [
            (path.x_block, harmonics.index(path.degrees[1]), slot, self.mode, True)
            for path, slot in zip(paths, slots, strict=True)
        ]
        with default_dtype(self.like.dtype):
            return o3.TensorProduct(
                self.irreps_in,
                self.irreps_harmonics,
                irreps_out,
                instructions,
                shared_weights=False,
                internal_weights=False,
            )
