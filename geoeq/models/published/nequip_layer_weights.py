"""Parameters of one layer of NequIP, as nequip and sevenn store them, in geoeq's form.

Both build the layer of e3nn's modules, which store flat weights without their normalization factors, in an order that
follows from irreps. The features have each irrep once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor

from geoeq import kernels
from geoeq.fields import NUM_ELEMENTS
from geoeq.layers.nequip import NequIPLayer
from geoeq.models.published.parameters import NamedParameters

__all__ = ["Matrices", "PublishedLayer", "element_table", "linear_weights_of", "take_matrices"]

#: Matrices [channels in, A, channels out] of each irrep.
Matrices = dict[o3.Irrep, Tensor]


def _pairs(irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> list[tuple[int, int]]:
    return [(i, o) for i, (_, a) in enumerate(irreps_in) for o, (_, b) in enumerate(irreps_out) if a == b]


def _flat_size(irreps_in: o3.Irreps, irreps_out: o3.Irreps, width: int = 1) -> int:
    """Return the number of weights of ``_e3nn_matrices``."""
    return sum(irreps_in[i].mul * width * irreps_out[o].mul for i, o in _pairs(irreps_in, irreps_out))


def _e3nn_matrices(flat: Tensor, irreps_in: o3.Irreps, irreps_out: o3.Irreps, width: int = 1) -> Matrices:
    """Return weights of ``o3.Linear``, or of ``o3.FullyConnectedTensorProduct`` with scalars, as one block per irrep.

    Args:
        flat: weights of all pairs of blocks, without the factors 1 / sqrt(fan-in).
        irreps_in, irreps_out: irreps in e3nn's order.
        width: number A of the scalars, the second factor of the product; 1 for a linear map.

    Shapes:
        flat: [sum of U A V]. Returns [U, A, V] for each irrep, with the channels of all its blocks.
    """
    pairs = _pairs(irreps_in, irreps_out)
    shapes = [(irreps_in[i].mul, width, irreps_out[o].mul) for i, o in pairs]
    parts = {
        pair: part.view(shape)
        for pair, shape, part in zip(pairs, shapes, flat.split([math.prod(shape) for shape in shapes]), strict=True)
    }
    result = {}
    for ir in dict.fromkeys(irreps_out[o].ir for _, o in pairs):
        rows = [n for n, (_, other) in enumerate(irreps_in) if other == ir]
        columns = [n for n, (_, other) in enumerate(irreps_out) if other == ir]
        whole = torch.cat([torch.cat([parts[i, o] for o in columns], dim=2) for i in rows])
        result[ir] = whole / math.sqrt(whole.shape[0] * width)
    return result


@dataclass(frozen=True)
class _Coupling:
    """One path of the convolution, and its number of channels."""

    irrep: o3.Irrep
    harmonic: int
    out: o3.Irrep
    channels: int

    @property
    def key(self) -> tuple[o3.Irrep, int, o3.Irrep]:
        return self.irrep, self.harmonic, self.out


@dataclass(frozen=True)
class PublishedLayer:
    """The irreps of a layer in their authors' order.

    Attributes:
        irreps_in: irreps of the features.
        irreps_out: irreps of the result.
        harmonics: irreps of the harmonics.
        sorted_columns: whether the last matrix of the radial network is sorted by the irrep of the result, as in sevenn
            since version 0.11.
        unused: parities of the irreps that the product has up to the degree of the result, even if they are not used,
            as in sevenn.
    """

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps
    harmonics: o3.Irreps
    sorted_columns: bool = False
    unused: tuple[int, ...] = ()

    @property
    def before_gate(self) -> o3.Irreps:
        """Irreps of the input of the gate: scalars, gates and gated, sorted."""
        scalars = [(mul, ir) for mul, ir in self.irreps_out if ir.l == 0]
        gated = [(mul, ir) for mul, ir in self.irreps_out if ir.l > 0]
        gates = [(sum(mul for mul, _ in gated), o3.Irrep("0e"))] if gated else []
        return o3.Irreps(scalars + gates + gated).sort().irreps.simplify()

    @property
    def product(self) -> o3.Irreps:
        """Irreps of the product, sorted."""
        return o3.Irreps([(c.channels, c.out) for c in self._couplings()]).sort().irreps.simplify()

    @property
    def num_weights(self) -> int:
        """Number of weights that the radial network gives to the product."""
        return sum(c.channels for c in self._couplings())

    def _couplings(self) -> list[_Coupling]:
        kept = {ir for _, ir in self.before_gate}
        lmax = self.irreps_out.lmax
        return [
            _Coupling(ir, harmonic.l, out, mul)
            for mul, ir in self.irreps_in
            for _, harmonic in self.harmonics
            for out in ir * harmonic
            if out in kept or (out.l <= lmax and out.p in self.unused)
        ]

    def last_matrix(self, matrix: Tensor, layer: NequIPLayer, symbols: Mapping[str, Tensor]) -> Tensor:
        """Return the last matrix of the radial network with the columns in the order of our paths.

        Args:
            matrix: theirs, [H, num_weights].
            layer: our layer.
            symbols: the 3j symbols "_w3j_1_1_2" that the authors' modules store, whose sign depends on e3nn's version.
        """
        couplings = self._couplings()
        if self.sorted_columns:
            place = o3.Irreps([(c.channels, c.out) for c in couplings]).sort().p
            couplings = [c for _, c in sorted(zip(place, couplings, strict=True), key=lambda pair: pair[0])]
        ends = list(itertools.accumulate(c.channels for c in couplings))
        columns = {c.key: matrix[:, end - c.channels : end] for c, end in zip(couplings, ends, strict=True)}
        parts = []
        for path in layer.paths.paths:
            key = layer.irreps_in[path.x_block].ir, path.degrees[1], layer.after.irreps_in[path.out_block].ir
            theirs = symbols.get("_w3j_{}_{}_{}".format(*path.degrees))
            flipped = theirs is not None and bool((theirs.double() * kernels.coupling(*path.degrees)).sum() < 0)
            parts.append(-columns[key] if flipped else columns[key])
        return torch.cat(parts, dim=1)

    def after_product(self, theirs: Matrices, layer: NequIPLayer) -> Matrices:
        """Return the matrices of the linear map after the product, whose rows are in the order of our paths.

        Rows after those of the product, of scalars appended to it, stay last.
        """
        result = {}
        for out, matrix in theirs.items():
            into = [c for c in self._couplings() if c.out == out]
            ends = list(itertools.accumulate(c.channels for c in into))
            rows = {c.key: matrix[end - c.channels : end] for c, end in zip(into, ends, strict=True)}
            ours = [
                rows[layer.irreps_in[path.x_block].ir, path.degrees[1], out]
                for path in layer.paths.paths
                if layer.after.irreps_in[path.out_block].ir == out
            ]
            result[out] = torch.cat([*ours, matrix[ends[-1] :]])
        return result


def linear_weights_of(name: str, irreps: o3.Irreps, matrices: Matrices) -> dict[str, Tensor]:
    """Return the weights of ``Linear`` with this output."""
    return {f"{name}.weights.{n}": matrices[ir].squeeze(1) for n, (_, ir) in enumerate(irreps)}


def take_matrices(
    theirs: NamedParameters, key: str, irreps_in: o3.Irreps, irreps_out: o3.Irreps, width: int = 1
) -> Matrices:
    """Take the weights ``key`` of an e3nn module."""
    flat = theirs.take(key, [_flat_size(irreps_in, irreps_out, width)])
    return _e3nn_matrices(flat, irreps_in, irreps_out, width)


def element_table(rows: Tensor, elements: Sequence[int]) -> Tensor:
    """Return a table with a row for each atomic number from one with a row for each element of a list."""
    table = rows.new_zeros(NUM_ELEMENTS, *rows.shape[1:])
    table[list(elements)] = rows
    return table
