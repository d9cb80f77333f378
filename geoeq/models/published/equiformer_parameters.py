"""Equiformer: the authors' parameters in geoeq's form."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from e3nn import o3
from e3nn.math import normalize2mom
from torch import Tensor, nn

from geoeq.errors import CheckpointError
from geoeq.fields import NUM_ELEMENTS
from geoeq.kernels import Paths, coupling
from geoeq.layers.equiformer import EquiformerBlock, EquiformerNorm, EquivariantGraphAttention
from geoeq.layers.inputs.degree_embedding import DegreeEmbedding
from geoeq.layers.irreps.activation import activation_scale
from geoeq.layers.layer import RadialFunction
from geoeq.layers.radial.bases import BesselBasis, LearnedGaussianBasis
from geoeq.models.published.parameters import NamedParameters

__all__ = ["phase_of_e3nn_04", "reference_parameters"]


class _Equiformer(Protocol):
    """The parts of the network that the conversion reads."""

    elements: tuple[int, ...] | None
    irreps_harmonics: o3.Irreps
    basis: RadialFunction
    degree: DegreeEmbedding
    blocks: nn.ModuleList
    norm: EquiformerNorm


def _score_scale() -> float:
    """Return e3nn's factor of the smooth LeakyReLU for a second moment of one."""
    return float(normalize2mom(lambda x: 0.6 * x + 0.4 * x * (0.5 * x).tanh()).cst)


class _Converter:
    """Takes the authors' parameters one by one and converts them to ours, in ``result``."""

    def __init__(self, model: _Equiformer, state_dict: Mapping[str, Tensor], radial_widths: Sequence[int]) -> None:
        def constant(key: str, value: Tensor) -> bool:
            return (
                value.numel() == 0
                or key.endswith("output_mask")
                or "_w3j_" in key
                or key in ("atomref", "rbf.means", "rbf.betas")
            )

        self.state_dict, self.theirs = state_dict, NamedParameters(state_dict, constant)
        self.model, self.radial_widths, self.result = model, radial_widths, dict[str, Tensor]()
        # Their π in the Gaussians is 3.14159.
        self.basis_factor = math.sqrt(math.pi / 3.14159) if isinstance(model.basis, LearnedGaussianBasis) else 1.0

    def maps(self, key: str, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> dict[o3.Irrep, Tensor]:
        """Return the matrix of each irrep of a linear map, which they store as one row of numbers, block by block."""
        pairs = [(mul_in, mul, ir) for mul_in, other in irreps_in for mul, ir in irreps_out if other == ir]
        flat = self.theirs.take(f"{key}.tp.weight", [sum(before * after for before, after, _ in pairs)])
        parts = flat.split([before * after for before, after, _ in pairs])
        return {ir: part.reshape(*shape) for part, (*shape, ir) in zip(parts, pairs, strict=True)}

    def bias(self, key: str, irreps_out: o3.Irreps) -> Tensor:
        return self.theirs.take(f"{key}.bias.0", [irreps_out.count("0e")])

    def linear(self, key: str, ours: str, irreps_in: o3.Irreps, irreps_out: o3.Irreps, bias: bool = True) -> None:
        """Convert a linear map between the same irreps."""
        self.put(ours, self.maps(key, irreps_in, irreps_out), irreps_out)
        if bias and irreps_out.count("0e"):
            self.result[f"{ours}.bias"] = self.bias(key, irreps_out)

    def put(self, ours: str, maps: Mapping[o3.Irrep, Tensor], irreps_out: o3.Irreps) -> None:
        self.result |= {f"{ours}.weights.{n}": maps[ir] for n, (_, ir) in enumerate(irreps_out)}

    def norm(self, key: str, ours: str, irreps: o3.Irreps) -> None:
        scale = self.theirs.take(f"{key}.affine_weight", [irreps.num_irreps])
        bias = self.theirs.take(f"{key}.affine_bias", [irreps.count("0e")])
        if self.model.norm.alone is not None:
            self.result |= {f"{ours}.alone.scale": scale, f"{ours}.alone.bias": bias}
            return
        self.result |= {f"{ours}.over_graph.norm.scale": scale, f"{ours}.over_graph.norm.bias": bias}
        if self.model.norm.over_graph is not None and self.model.norm.over_graph.shift is not None:
            shift = self.theirs.take(f"{key}.mean_shift", [irreps.count("0e")])
            self.result[f"{ours}.over_graph.shift"] = shift

    def radial(self, key: str, ours: str, width_out: int, factor: Tensor, rows: int) -> None:
        """Convert a radial network: the first ``rows`` of its ``width_out`` outputs, times ``factor``."""
        before, *hidden = self.radial_widths
        for n, width in enumerate(hidden):
            shapes = {f"{3 * n}.weight": [width, before], f"{3 * n}.bias": [width]}
            shapes |= {f"{3 * n + 1}.weight": [width], f"{3 * n + 1}.bias": [width]}
            for name, shape in shapes.items():
                self.result[f"{ours}.network.{name}"] = self.theirs.take(f"{key}.net.{name}", shape)
            before = width
        first = f"{ours}.network.0.weight"
        self.result[first] = self.result[first] * self.basis_factor
        last = f"{3 * len(hidden)}.weight"
        weight = self.theirs.take(f"{key}.net.{last}", [width_out, before])[:rows]
        self.result[f"{ours}.network.{last}"] = weight * factor.unsqueeze(1)
        self.result[f"{ours}.offset"] = self.theirs.take(f"{key}.offset", [width_out])[:rows] * factor

    def phases(self, key: str, paths: Paths) -> Tensor:
        """Return 1 or -1 for each weight of a tensor product: whether its 3j symbols have the sign of ours."""
        signs = []
        for path in paths.paths:
            name = "_".join(map(str, path.degrees))
            buffer = self.state_dict.get(f"{key}.dtp.tp._compiled_main_left_right._w3j_{name}")
            if buffer is None:
                sign = phase_of_e3nn_04(*path.degrees)
            else:
                sign = 1 if float((buffer.double() * coupling(*path.degrees)).sum()) > 0 else -1
            signs += [float(sign)] * path.weight_numel
        return torch.tensor(signs)

    def embedding(self, elements: Sequence[int], irreps: o3.Irreps) -> None:
        """Convert their map of one-hot elements to a table."""
        key, width = "atom_embed.atom_type_lin", irreps.count("0e")
        rows = self.theirs.take(f"{key}.tp.weight", [len(elements) * width]).reshape(-1, width)
        table = rows.new_zeros(NUM_ELEMENTS, width)
        table[list(elements)] = rows + self.bias(key, irreps)
        self.result["embedding.scalars.element.weight"] = table

    def basis(self) -> None:
        basis = self.model.basis
        if isinstance(basis, LearnedGaussianBasis):
            for name, shape in {
                "mean": [1, basis.width],
                "std": [1, basis.width],
                "weight": [1, 1],
                "bias": [1, 1],
            }.items():
                self.result[f"basis.{name}"] = self.theirs.take(f"rbf.{name}", shape).flatten()
        elif isinstance(basis, BesselBasis):
            self.result["basis.frequencies"] = self.theirs.take("rbf.rbf.frequencies", [basis.width]) / math.pi
        elif basis.cutoff != 5.0:  # their centres start at exp(-cutoff), ours at exp(-5)
            raise CheckpointError(
                f"Equiformer.from_reference: the 'exp' basis needs a max_radius of 5, not {basis.cutoff}."
            )

    def degree(self, layer: DegreeEmbedding, harmonics: o3.Irreps) -> None:
        """Convert the embedding of the degree; its input is a constant in the scalars and zero otherwise."""
        key, irreps, width = "edge_deg_embed", layer.irreps_in, layer.width
        constant = self.maps(f"{key}.exp", o3.Irreps("1x0e"), irreps)[o3.Irrep("0e")][0]
        constant = constant + self.bias(f"{key}.exp", irreps)
        products = _depthwise(irreps, harmonics, irreps)
        rows = layer.paths.weight_numel
        self.radial(f"{key}.rad", "degree.radial", products.num_irreps, constant.repeat(rows // width), rows)
        maps = self.maps(f"{key}.proj", products, irreps)
        self.put("degree.linear", {ir: rows[:width] for ir, rows in maps.items()}, layer.linear.irreps_out)
        self.result["degree.bias"] = self.bias(f"{key}.proj", irreps)

    def attention(self, theirs: str, ours: str, layer: EquivariantGraphAttention) -> None:
        irreps, message, heads = layer.irreps_in, layer.source.irreps_out, layer.value.irreps_out
        self.linear(f"{theirs}.merge_src", f"{ours}.source", irreps, message)
        self.linear(f"{theirs}.merge_dst", f"{ours}.target", irreps, message, bias=False)
        self.linear(f"{theirs}.proj", f"{ours}.output", heads, irreps)
        num_heads, width = layer.score_vector.shape
        vector = self.theirs.take(f"{theirs}.alpha_dot", [1, num_heads, width])[0]
        self.result[f"{ours}.score_vector"] = vector * _score_scale()

        first = f"{theirs}.sep" if layer.value_paths is None else f"{theirs}.sep_act"
        numel = layer.paths.weight_numel
        self.radial(f"{first}.dtp_rad", f"{ours}.radial", numel, self.phases(first, layer.paths), numel)
        products = _even_first(layer.score.irreps_in)
        if layer.value_paths is None or layer.gate_input is None:
            self._joint(first, ours, products, heads, num_heads)
            return
        self.linear(f"{first}.lin", f"{ours}.gate_input", products, layer.gate_input.irreps_out)
        self.linear(f"{theirs}.sep_alpha", f"{ours}.score", products, layer.score.irreps_out)
        second, paths = f"{theirs}.sep_value", layer.value_paths.single
        weights = self.theirs.take(f"{second}.dtp.tp.weight", [paths.weight_numel]) * self.phases(second, paths)
        maps = self.maps(f"{second}.lin", _even_first(layer.value.irreps_in), heads)
        for (_, ir), rows in zip(layer.value.irreps_in, _by_block(weights, paths), strict=True):
            if ir in maps:
                maps[ir] = maps[ir] * rows.unsqueeze(1)
        self.put(f"{ours}.value", maps, heads)
        self.result[f"{ours}.value.bias"] = self.bias(f"{second}.lin", heads)

    def _joint(self, key: str, ours: str, products: o3.Irreps, heads: o3.Irreps, num_heads: int) -> None:
        """Split their joint map to scores and values; of the scalars of a head, those of the scores come first."""
        scalar = o3.Irrep("0e")
        width = heads.count(scalar) // num_heads
        both = o3.Irreps([(2 * mul if ir == scalar else mul, ir) for mul, ir in heads])
        maps, bias = self.maps(f"{key}.lin", products, both), self.bias(f"{key}.lin", both)
        score, value = maps[scalar].reshape(-1, num_heads, 2, width).unbind(2)
        score_bias, value_bias = bias.reshape(num_heads, 2, width).unbind(1)
        self.result[f"{ours}.score.weights.0"] = score.flatten(1)
        self.result[f"{ours}.score.bias"] = score_bias.flatten()
        self.put(f"{ours}.value", maps | {scalar: value.flatten(1)}, heads)
        self.result[f"{ours}.value.bias"] = value_bias.flatten()


def _even_first(irreps: o3.Irreps) -> o3.Irreps:
    """Sort irreps in their order: 0e, 0o, 1e, 1o, ..."""
    return o3.Irreps(sorted(irreps, key=lambda entry: (entry.ir.l, -entry.ir.p)))


def _depthwise(irreps: o3.Irreps, harmonics: o3.Irreps, keep: o3.Irreps) -> o3.Irreps:
    """Return the irreps of their depthwise product, including scalars whether kept or not."""
    outputs = [
        (mul, out)
        for mul, ir in irreps
        for _, harmonic in harmonics
        for out in ir * harmonic
        if out in keep or out == o3.Irrep("0e")
    ]
    return _even_first(o3.Irreps(outputs)).simplify()


def _by_block(weights: Tensor, paths: Paths) -> list[Tensor]:
    """Return the weights of a "uvu" product in the order of the channels of each block of its output."""
    order = sorted(paths.paths, key=lambda path: (path.out_block, path.out_channel))
    rows = [(path.out_block, weights[path.weight_start : path.weight_start + path.weight_numel]) for path in order]
    return [torch.cat([part for block, part in rows if block == n]) for n in range(len(paths.out_blocks))]


def reference_parameters(
    model: _Equiformer, state_dict: Mapping[str, Tensor], radial_widths: Sequence[int]
) -> dict[str, Tensor]:
    """Return a value for each parameter of ``model``.

    Args:
        model: the network, built with the arguments of ``reference_arguments``.
        state_dict: the authors' parameters and buffers.
        radial_widths: number of radial functions, followed by the hidden widths of the radial networks.

    Raises:
        CheckpointError: a parameter is missing, left over, or of another shape.
    """
    converter = _Converter(model, state_dict, radial_widths)
    irreps = model.degree.irreps_in
    converter.embedding(model.elements or (), irreps)
    converter.basis()
    converter.degree(model.degree, model.irreps_harmonics)
    blocks: list[EquiformerBlock] = list(model.blocks)  # type: ignore[arg-type]  # a ModuleList of blocks
    for number, block in enumerate(blocks):
        theirs = ours = f"blocks.{number}"
        out = block.irreps_out
        converter.norm(f"{theirs}.norm_1", f"{ours}.norm_1", irreps)
        converter.norm(f"{theirs}.norm_2", f"{ours}.norm_2", irreps)
        converter.attention(f"{theirs}.ga", f"{ours}.attention", block.attention)
        network = block.feed_forward
        converter.linear(f"{theirs}.ffn.fctp_1", f"{ours}.feed_forward.first", irreps, network.first.irreps_out)
        converter.linear(f"{theirs}.ffn.fctp_2", f"{ours}.feed_forward.second", network.second.irreps_in, out)
        if block.shortcut is not None:
            converter.linear(f"{theirs}.ffn_shortcut", f"{ours}.shortcut", irreps, out)
    out = model.norm.irreps_in
    converter.norm("norm", "norm", out)
    scalar, head = o3.Irrep("0e"), "heads.0.network"
    first = converter.maps("head.0", out, out)[scalar]
    last = converter.maps("head.2", out, o3.Irreps("1x0e"))[scalar]
    converter.result |= {f"{head}.0.weight": first.T, f"{head}.0.bias": converter.bias("head.0", out)}
    converter.result |= {f"{head}.2.weight": last.T * activation_scale("silu")}
    converter.result |= {f"{head}.2.bias": converter.bias("head.2", o3.Irreps("1x0e"))}
    converter.theirs.finish("Equiformer")
    return converter.result


@functools.cache
def phase_of_e3nn_04(l_x: int, l_harmonics: int, l_out: int) -> int:
    """Return the sign between the Wigner 3j symbols of e3nn 0.4 and those of e3nn 0.5 and later.

    Before 0.5 the symbols of ascending degrees were positive at m = 0, 0, 0 or, if that entry is zero, in their first
    nonzero entry (row by row); those of other orders followed by permutation, with ``(-1)^(l1 + l2 + l3)`` for odd
    permutations. Some published weights were trained with these symbols.

    Raises:
        InputError: the degrees do not couple.
    """
    degrees = (l_x, l_harmonics, l_out)
    order = sorted(range(3), key=lambda n: degrees[n])
    ascending = coupling(*(degrees[n] for n in order))
    inversions = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3))
    odd = inversions % 2 == 1 and sum(degrees) % 2 == 1
    entries = ascending.flatten()
    center = ascending[tuple(degrees[n] for n in order)]
    first = center if center.abs() > 1e-10 else entries[(entries.abs() > 1e-10).int().argmax()]
    back = ascending.permute(*(order.index(n) for n in range(3)))
    agree = float((back * coupling(*degrees)).sum()) * float(first) > 0
    return 1 if agree != odd else -1
