"""Generate the kernels of a depthwise tensor product for given paths, whose coefficients are constants in the text.

All kernels are loops over rows (receivers, senders or edges). For each edge, the couplings are contracted with its
harmonics, ``M^p_ik = Σ_j C^p_ijk Y_j``, once for all channels; then vectors of channels compute ``Σ_i M_ik x_i``.
"""

from __future__ import annotations

from geoeq.kernels.coupled_paths import CoupledPath, by_x_block, coupled_paths
from geoeq.kernels.llvm.emit import Code, Scalar
from geoeq.kernels.llvm.kernel import Kernel, Row, function
from geoeq.kernels.paths import Paths

__all__ = [
    "OutRow",
    "WeightRow",
    "add_by_harmonics",
    "contract",
    "edge_kernel",
    "products",
    "receiver_kernel",
    "sender_kernel",
]


def _harmonics(code: Code, coupled: list[CoupledPath], row: str) -> dict[int, str]:
    used = sorted({j for member in coupled for entry in member.entries for j, _ in entry.terms})
    return {j: code.load_scalar(row, j) for j in used}


def contract(code: Code, coupled: list[CoupledPath], row: str, matrices: str) -> None:
    """Write the entries of M of all paths of an edge to ``matrices``."""
    numbers = _harmonics(code, coupled, row)
    for member in coupled:
        for n, entry in enumerate(member.entries, start=member.first_entry):
            code.store_scalar(code.linear([(factor, numbers[j]) for j, factor in entry.terms]), matrices, n)


class OutRow:
    """A row of the output or of its cotangent, with the layout of ``paths.divided``.

    With heads there is a copy of each block for every head, each with all rows, one after another.
    """

    def __init__(self, code: Code, base: str, row: str, paths: Paths) -> None:
        self.code, self.blocks, start = code, list[str](), 0
        self.copies = max(1, paths.heads)
        self.shapes = [block for block in paths.out_blocks for _ in range(self.copies)]
        whole = "" if paths.divided else Row(code, base, row, paths.out_dim).base
        for dim, channels in self.shapes:
            if paths.divided:
                first = code.address(base, code.multiply("%rows", start)) if start else base
                self.blocks.append(Row(code, first, row, dim * channels).base)
            else:
                self.blocks.append(code.address(whole, start))
            start += dim * channels

    def at(self, member: CoupledPath, channel: str, k: int, head: int = 0) -> tuple[str, int]:
        """Return the address and offset of the channels of out_k from ``channel``."""
        address = self.code.address(self.blocks[member.path.out_block * self.copies + head], channel)
        return address, member.path.out_channel + k * member.out_width

    def clear(self) -> None:
        """Set the row to zero."""
        for block, (dim, channels) in zip(self.blocks, self.shapes, strict=True):
            self.code.zero(block, dim * channels)


class WeightRow:
    """The weights of an edge: one per channel of each path, one per head, or none."""

    def __init__(self, code: Code, row: str, paths: Paths, weighted: bool) -> None:
        self.code, self.per_channel = code, weighted and not paths.heads
        self.row = Row(code, "%weights", row, paths.weight_numel)
        numbers = [code.load_scalar(self.row.base, head) for head in range(paths.heads)]
        self.heads = [code.splat(number) for number in numbers]

    def of_path(self, member: CoupledPath, channel: str) -> str | None:
        return self.code.load(self.row.at(channel), member.path.weight_start) if self.per_channel else None

    def summed(self, rows: OutRow, member: CoupledPath, channel: str, k: int) -> str:
        """Return the cotangent of a product: ``g``, or with heads ``Σ_h w_h g_h``."""
        total = None
        for head, weight in enumerate(self.heads):
            total = self.code.fused(weight, self.code.load(*rows.at(member, channel, k, head)), total)
        return self.code.load(*rows.at(member, channel, k)) if total is None else total


def receiver_kernel(paths: Paths, weighted: bool, added: bool, scalar: Scalar, lanes: int) -> Kernel:
    """Return the kernel of ``out_n,p,k = Σ_e w_ep Σ_i M^p_ik x_i`` over the edges e into receiver n.

    Pointers: x [N, x_dim], harmonics [E, harmonics_dim], weights [E, weight_numel] (not read if not ``weighted``),
    sender [E], row_pointers [N + 1], and the result [N, out_dim], which is overwritten, or ``added`` to. Rows are
    receivers.
    """
    code, coupled = Code(scalar, lanes), coupled_paths(paths)
    matrices = code.scratch(sum(len(member.entries) for member in coupled))
    with code.loop("%first", "%last") as node:
        out = OutRow(code, "%out", node, paths)
        if not added:
            out.clear()
        begin = code.load_index("%row_pointers", node)
        end = code.load_index("%row_pointers", code.add(node, 1))
        with code.loop(begin, end) as edge:
            contract(code, coupled, Row(code, "%harmonics", edge, paths.harmonics_dim).base, matrices)
            x = Row(code, "%x", code.load_index("%sender", edge), paths.x_dim)
            weights = WeightRow(code, edge, paths, weighted)
            for members in by_x_block(coupled):
                for channel in code.vectors(members[0].channels):
                    _add_messages(code, members, matrices, x.at(channel), weights, out, channel)
    return function("receiver", code, ["x", "harmonics", "weights", "sender", "row_pointers", "out"])


def _add_messages(
    code: Code, members: list[CoupledPath], matrices: str, x: str, weights: WeightRow, out: OutRow, channel: str
) -> None:
    channels = members[0].channels
    inputs = [code.load(x, members[0].x_start + i * channels) for i in members[0].rows]
    for member in members:
        weight = weights.of_path(member, channel)
        for k, product in products(code, member, inputs, matrices).items():
            for head, factor in enumerate(weights.heads or (weight,)):
                target = out.at(member, channel, k, head)
                code.store(code.scaled(factor, product, code.load(*target)), *target)


def products(code: Code, member: CoupledPath, inputs: list[str], matrices: str) -> dict[int, str]:
    """Return ``Σ_i M_ik x_i`` for every k."""
    sums: dict[int, str] = {}
    for n, entry in enumerate(member.entries, start=member.first_entry):
        factor = code.splat(code.load_scalar(matrices, n))
        sums[entry.k] = code.fused(factor, inputs[entry.i], sums.get(entry.k))
    return sums


def sender_kernel(paths: Paths, weighted: bool, added: bool, scalar: Scalar, lanes: int) -> Kernel:
    """Return the kernel of the gradient by x: ``Σ_e Σ_p w_ep Σ_k M^p_ik g_n,p,k`` over the edges e from sender s to n.

    Pointers: cotangent g [N, out_dim], harmonics, weights, receiver [E], order [E] of the edges by sender, pointers
    [N + 1] into it, and the result [N, x_dim], which is overwritten, or ``added`` to. Rows are senders.
    """
    code, coupled = Code(scalar, lanes), coupled_paths(paths)
    matrices = code.scratch(sum(len(member.entries) for member in coupled))
    with code.loop("%first", "%last") as node:
        x = Row(code, "%x", node, paths.x_dim)
        if not added:
            code.zero(x.base, paths.x_dim)
        begin = code.load_index("%pointers", node)
        end = code.load_index("%pointers", code.add(node, 1))
        with code.loop(begin, end) as position:
            edge = code.load_index("%order", position)
            contract(code, coupled, Row(code, "%harmonics", edge, paths.harmonics_dim).base, matrices)
            g = OutRow(code, "%g", code.load_index("%receiver", edge), paths)
            weights = WeightRow(code, edge, paths, weighted)
            for members in by_x_block(coupled):
                for channel in code.vectors(members[0].channels):
                    _add_transposed(code, members, matrices, x.at(channel), weights, g, channel)
    return function("sender", code, ["g", "harmonics", "weights", "receiver", "order", "pointers", "x"])


def _add_transposed(
    code: Code, members: list[CoupledPath], matrices: str, x: str, weights: WeightRow, g: OutRow, channel: str
) -> None:
    channels = members[0].channels
    columns = [members[0].x_start + i * channels for i in members[0].rows]
    totals = [code.load(x, column) for column in columns]
    for member in members:
        weight = weights.of_path(member, channel)
        weighted = {
            k: code.scaled(weight, weights.summed(g, member, channel, k))
            for k in sorted({entry.k for entry in member.entries})
        }
        for n, entry in enumerate(member.entries, start=member.first_entry):
            factor = code.splat(code.load_scalar(matrices, n))
            totals[entry.i] = code.fused(factor, weighted[entry.k], totals[entry.i])
    for column, total in zip(columns, totals, strict=True):
        code.store(total, x, column)


def edge_kernel(
    paths: Paths, weighted: bool, by_harmonics: bool, by_weights: bool, added: bool, scalar: Scalar, lanes: int
) -> Kernel:
    """Return the kernel of each edge's gradients: by weights ``Σ_ik M_ik x_i g_k``, by harmonics
    ``Σ_u w_u Σ_ik C_ijk x_i g_k``.

    Pointers: x, harmonics, weights, cotangent g, sender, receiver, and the results by harmonics [E, harmonics_dim] and
    by weights [E, weight_numel], which are overwritten, or ``added`` to; one that is not requested is not accessed.
    Rows are edges.
    """
    code, coupled = Code(scalar, lanes), coupled_paths(paths)
    scratch = code.scratch(
        paths.harmonics_dim * lanes if by_harmonics else sum(len(member.entries) for member in coupled)
    )
    with code.loop("%first", "%last") as edge:
        row = Row(code, "%harmonics", edge, paths.harmonics_dim).base
        numbers: dict[int, str] = {}
        if by_harmonics:
            code.zero(scratch, paths.harmonics_dim * lanes)
            numbers = _harmonics(code, coupled, row) if by_weights else {}
        else:
            contract(code, coupled, row, scratch)
        x = Row(code, "%x", code.load_index("%sender", edge), paths.x_dim)
        g = OutRow(code, "%g", code.load_index("%receiver", edge), paths)
        weights = WeightRow(code, edge, paths, weighted)
        weight_gradients = Row(code, "%by_weights", edge, paths.weight_numel)
        for member in coupled:
            for channel in code.vectors(member.channels):
                result = weight_gradients.at(channel) if by_weights else None
                channels = x.at(channel)
                inputs = [code.load(channels, member.x_start + i * member.channels) for i in member.rows]
                outputs = {k: code.load(*g.at(member, channel, k)) for k in sorted({e.k for e in member.entries})}
                if by_harmonics:
                    weight = weights.of_path(member, channel)
                    total = add_by_harmonics(code, member, inputs, outputs, weight, numbers, scratch)
                else:
                    total = _by_weights(code, member, inputs, outputs, scratch)
                if result is not None and total is not None:
                    start = member.path.weight_start
                    code.store(code.scaled(None, total, code.load(result, start) if added else None), result, start)
        if by_harmonics:
            sums = Row(code, "%by_harmonics", edge, paths.harmonics_dim).base
            for j in range(paths.harmonics_dim):
                total = code.sum(code.load(scratch, j * lanes))
                code.store_scalar(code.plus(total, code.load_scalar(sums, j)) if added else total, sums, j)
    pointers = ["x", "harmonics", "weights", "g", "sender", "receiver", "by_harmonics", "by_weights"]
    return function("edge", code, pointers)


def _by_weights(
    code: Code, member: CoupledPath, inputs: list[str], outputs: dict[int, str], matrices: str
) -> str | None:
    """Return ``Σ_i x_i Σ_k M_ik g_k``."""
    sums: dict[int, str] = {}
    for n, entry in enumerate(member.entries, start=member.first_entry):
        factor = code.splat(code.load_scalar(matrices, n))
        sums[entry.i] = code.fused(factor, outputs[entry.k], sums.get(entry.i))
    total = None
    for i, vector in sums.items():
        total = code.fused(inputs[i], vector, total)
    return total


def add_by_harmonics(
    code: Code,
    member: CoupledPath,
    inputs: list[str],
    outputs: dict[int, str],
    weight: str | None,
    numbers: dict[int, str],
    sums: str,
) -> str | None:
    """Add ``w v_j`` with ``v_j = Σ_ik C_ijk x_i g_k`` to ``sums``; return ``Σ_j Y_j v_j`` if Y is given, else None."""
    vectors: dict[int, str] = {}
    for entry in member.entries:
        product = code.times(inputs[entry.i], outputs[entry.k])
        for j, factor in entry.terms:
            vectors[j] = code.fused(code.constant(factor), product, vectors.get(j))
    total = None
    for j, vector in vectors.items():
        if numbers:
            total = code.fused(code.splat(numbers[j]), vector, total)
        with code.whole():  # sums have all lanes; those without a channel hold zeros
            before = code.load(sums, j * code.lanes)
            code.store(code.scaled(weight, vector, before), sums, j * code.lanes)
    return total
