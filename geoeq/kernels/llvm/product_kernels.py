"""The kernels of a depthwise tensor product, written for its paths alone: every coefficient is a constant in them.

All are loops over rows (receivers, senders or edges). For an edge, the couplings are contracted with its harmonics,
``M^p_ik = Σ_j C^p_ijk Y_j``, once for all channels; then vectors of channels go through ``Σ_i M_ik x_i``.
"""

from __future__ import annotations

from geoeq.kernels.coupled_paths import CoupledPath, by_x_block, coupled_paths
from geoeq.kernels.llvm.emit import Code, Scalar
from geoeq.kernels.llvm.kernel import Kernel, Row, function
from geoeq.kernels.paths import Paths

__all__ = ["edge_kernel", "receiver_kernel", "sender_kernel"]


def _harmonics(code: Code, coupled: list[CoupledPath], row: str) -> dict[int, str]:
    used = sorted({j for member in coupled for entry in member.entries for j, _ in entry.terms})
    return {j: code.load_scalar(row, j) for j in used}


def _contract(code: Code, coupled: list[CoupledPath], row: str, matrices: str) -> None:
    """Write M of all paths of an edge to ``matrices``."""
    numbers = _harmonics(code, coupled, row)
    for member in coupled:
        for n, entry in enumerate(member.entries, start=member.first_entry):
            code.store_scalar(code.linear([(factor, numbers[j]) for j, factor in entry.terms]), matrices, n)


class _Out:
    """A row of the output, or of what is multiplied by it; its blocks lie where ``paths.divided`` says."""

    def __init__(self, code: Code, base: str, row: str, paths: Paths) -> None:
        self.code, self.blocks, start = code, list[str](), 0
        whole = "" if paths.divided else Row(code, base, row, paths.out_dim).base
        for dim, channels in paths.out_blocks:
            if paths.divided:
                first = code.address(base, code.multiply("%rows", start)) if start else base
                self.blocks.append(Row(code, first, row, dim * channels).base)
            else:
                self.blocks.append(code.address(whole, start))
            start += dim * channels

    def at(self, member: CoupledPath, channel: str, k: int) -> tuple[str, int]:
        """Address and further place of the channels of out_k from ``channel`` on."""
        place = self.code.address(self.blocks[member.path.out_block], channel)
        return place, member.path.out_channel + k * member.out_width


def receiver_kernel(paths: Paths, weighted: bool, added: bool, scalar: Scalar, lanes: int) -> Kernel:
    """``out_n,p,k = Σ_e w_ep Σ_i M^p_ik x_i`` over the edges e into receiver n.

    Pointers: x [N, x_dim], harmonics [E, harmonics_dim], weights [E, weight_numel] (not read if not ``weighted``),
    sender [E], row_pointers [N + 1], and the result [N, out_dim], which is written, or ``added`` to. Rows are
    receivers.
    """
    code, coupled = Code(scalar, lanes), coupled_paths(paths)
    matrices = code.scratch(sum(len(member.entries) for member in coupled))
    with code.loop("%first", "%last") as node:
        out = _Out(code, "%out", node, paths)
        for block, (dim, channels) in zip(out.blocks, paths.out_blocks, strict=True):
            if not added:
                code.zero(block, dim * channels)
        begin = code.load_index("%row_pointers", node)
        end = code.load_index("%row_pointers", code.add(node, 1))
        with code.loop(begin, end) as edge:
            _contract(code, coupled, Row(code, "%harmonics", edge, paths.harmonics_dim).base, matrices)
            x = Row(code, "%x", code.load_index("%sender", edge), paths.x_dim)
            weights = Row(code, "%weights", edge, paths.weight_numel)
            for members in by_x_block(coupled):
                for channel in code.vectors(members[0].channels):
                    weight = weights.at(channel) if weighted else None
                    _add_messages(code, members, matrices, x.at(channel), weight, out, channel)
    return function("receiver", code, ["x", "harmonics", "weights", "sender", "row_pointers", "out"])


def _add_messages(
    code: Code, members: list[CoupledPath], matrices: str, x: str, weights: str | None, out: _Out, channel: str
) -> None:
    channels = members[0].channels
    inputs = [code.load(x, members[0].x_start + i * channels) for i in members[0].rows]
    for member in members:
        weight = None if weights is None else code.load(weights, member.path.weight_start)
        products: dict[int, str] = {}
        for n, entry in enumerate(member.entries, start=member.first_entry):
            factor = code.splat(code.load_scalar(matrices, n))
            products[entry.k] = code.fused(factor, inputs[entry.i], products.get(entry.k))
        for k, product in products.items():
            place = out.at(member, channel, k)
            code.store(code.scaled(weight, product, code.load(*place)), *place)


def sender_kernel(paths: Paths, weighted: bool, added: bool, scalar: Scalar, lanes: int) -> Kernel:
    """The derivative by x: ``Σ_e Σ_p w_ep Σ_k M^p_ik g_n,p,k`` over the edges e from sender s to n.

    Pointers: cotangent g [N, out_dim], harmonics, weights, receiver [E], order [E] of the edges by sender, pointers
    [N + 1] into it, and the result [N, x_dim], which is written, or ``added`` to. Rows are senders.
    """
    code, coupled = Code(scalar, lanes), coupled_paths(paths)
    matrices = code.scratch(sum(len(member.entries) for member in coupled))
    with code.loop("%first", "%last") as node:
        x = Row(code, "%x", node, paths.x_dim)
        if not added:
            code.zero(x.base, paths.x_dim)
        begin = code.load_index("%pointers", node)
        end = code.load_index("%pointers", code.add(node, 1))
        with code.loop(begin, end) as place:
            edge = code.load_index("%order", place)
            _contract(code, coupled, Row(code, "%harmonics", edge, paths.harmonics_dim).base, matrices)
            g = _Out(code, "%g", code.load_index("%receiver", edge), paths)
            weights = Row(code, "%weights", edge, paths.weight_numel)
            for members in by_x_block(coupled):
                for channel in code.vectors(members[0].channels):
                    weight = weights.at(channel) if weighted else None
                    _add_transposed(code, members, matrices, x.at(channel), weight, g, channel)
    return function("sender", code, ["g", "harmonics", "weights", "receiver", "order", "pointers", "x"])


def _add_transposed(
    code: Code, members: list[CoupledPath], matrices: str, x: str, weights: str | None, g: _Out, channel: str
) -> None:
    channels = members[0].channels
    places = [members[0].x_start + i * channels for i in members[0].rows]
    totals = [code.load(x, place) for place in places]
    for member in members:
        weight = None if weights is None else code.load(weights, member.path.weight_start)
        weighed = {
            k: code.scaled(weight, code.load(*g.at(member, channel, k)))
            for k in sorted({entry.k for entry in member.entries})
        }
        for n, entry in enumerate(member.entries, start=member.first_entry):
            factor = code.splat(code.load_scalar(matrices, n))
            totals[entry.i] = code.fused(factor, weighed[entry.k], totals[entry.i])
    for place, total in zip(places, totals, strict=True):
        code.store(total, x, place)


def edge_kernel(
    paths: Paths, weighted: bool, by_harmonics: bool, by_weights: bool, added: bool, scalar: Scalar, lanes: int
) -> Kernel:
    """Derivatives of each edge, by weights ``Σ_ik M_ik x_i g_k`` and by harmonics ``Σ_u w_u Σ_ik C_ijk x_i g_k``.

    Pointers: x, harmonics, weights, cotangent g, sender, receiver, and the results by harmonics [E, harmonics_dim] and
    by weights [E, weight_numel], which are written, or ``added`` to; the one that is not asked for is not touched. Rows
    are edges.
    """
    code, coupled = Code(scalar, lanes), coupled_paths(paths)
    room = code.scratch(paths.harmonics_dim * lanes if by_harmonics else sum(len(member.entries) for member in coupled))
    with code.loop("%first", "%last") as edge:
        row = Row(code, "%harmonics", edge, paths.harmonics_dim).base
        numbers: dict[int, str] = {}
        if by_harmonics:
            code.zero(room, paths.harmonics_dim * lanes)
            numbers = _harmonics(code, coupled, row) if by_weights else {}
        else:
            _contract(code, coupled, row, room)
        x = Row(code, "%x", code.load_index("%sender", edge), paths.x_dim)
        g = _Out(code, "%g", code.load_index("%receiver", edge), paths)
        weights = Row(code, "%weights", edge, paths.weight_numel)
        found = Row(code, "%by_weights", edge, paths.weight_numel)
        for member in coupled:
            for channel in code.vectors(member.channels):
                result = found.at(channel) if by_weights else None
                place = x.at(channel)
                inputs = [code.load(place, member.x_start + i * member.channels) for i in member.rows]
                outputs = {k: code.load(*g.at(member, channel, k)) for k in sorted({e.k for e in member.entries})}
                if by_harmonics:
                    weight = code.load(weights.at(channel), member.path.weight_start) if weighted else None
                    total = _add_by_harmonics(code, member, inputs, outputs, weight, numbers, room)
                else:
                    total = _by_weights(code, member, inputs, outputs, room)
                if result is not None and total is not None:
                    start = member.path.weight_start
                    code.store(code.scaled(None, total, code.load(result, start) if added else None), result, start)
        if by_harmonics:
            sums = Row(code, "%by_harmonics", edge, paths.harmonics_dim).base
            for j in range(paths.harmonics_dim):
                total = code.sum(code.load(room, j * lanes))
                code.store_scalar(code.plus(total, code.load_scalar(sums, j)) if added else total, sums, j)
    pointers = ["x", "harmonics", "weights", "g", "sender", "receiver", "by_harmonics", "by_weights"]
    return function("edge", code, pointers)


def _by_weights(
    code: Code, member: CoupledPath, inputs: list[str], outputs: dict[int, str], matrices: str
) -> str | None:
    """``Σ_i x_i Σ_k M_ik g_k``."""
    sums: dict[int, str] = {}
    for n, entry in enumerate(member.entries, start=member.first_entry):
        factor = code.splat(code.load_scalar(matrices, n))
        sums[entry.i] = code.fused(factor, outputs[entry.k], sums.get(entry.i))
    total = None
    for i, vector in sums.items():
        total = code.fused(inputs[i], vector, total)
    return total


def _add_by_harmonics(
    code: Code,
    member: CoupledPath,
    inputs: list[str],
    outputs: dict[int, str],
    weight: str | None,
    numbers: dict[int, str],
    room: str,
) -> str | None:
    """Add ``w v_j`` with ``v_j = Σ_ik C_ijk x_i g_k`` to ``room``; returns ``Σ_j Y_j v_j`` where Y is given."""
    vectors: dict[int, str] = {}
    for entry in member.entries:
        product = code.times(inputs[entry.i], outputs[entry.k])
        for j, factor in entry.terms:
            vectors[j] = code.fused(code.constant(factor), product, vectors.get(j))
    total = None
    for j, vector in vectors.items():
        if numbers:
            total = code.fused(code.splat(numbers[j]), vector, total)
        with code.whole():  # there is room for all lanes, and those without a channel hold zeros
            before = code.load(room, j * code.lanes)
            code.store(code.scaled(weight, vector, before), room, j * code.lanes)
    return total
