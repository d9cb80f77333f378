"""Generate the kernels of gradients by the factors of the weights: the hidden layer of each edge, and the matrix.

Both are products with the cotangents of weights, which are computed path by path and never stored. With half precision
the cotangents are rounded before they are multiplied, as they would be in an array; sums are in float32.
"""

from __future__ import annotations

from geoeq.kernels.coupled_paths import CoupledPath, by_x_block, coupled_paths
from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.edge_kernel import load_ends
from geoeq.kernels.triton.kernel import Kernel, Tile, words
from geoeq.kernels.triton.text import linear, masked, used_harmonics
from geoeq.kernels.triton.tile_text import TileText, tile_text

__all__ = ["hidden_kernel", "matrix_kernel"]

#: Number of rows of the matrix, of all paths together, that a program sums: 16 registers per thread.
_ROWS = 128


def hidden_kernel(paths: Paths, scalar: str, tile: Tile, hidden: int) -> Kernel:
    """Return the kernel of the gradient by the hidden layer, ``Σ_p Σ_u matrix_hp Σ_j Y_j v_j`` of each edge.

    Arguments: x, harmonics, matrix [H, weight_numel], cotangent g, sender, receiver, the result [E, hidden], and the
    number of edges.
    """
    text, coupled = tile_text(paths, scalar, tile, hidden), coupled_paths(paths)
    arguments = "x", "harmonics", "matrix", "g", "sender", "receiver", "by_hidden", "count"
    with text.function("by_hidden", arguments, '@triton.jit(do_not_specialize=["count"])'):
        text.add(f"begin = tl.program_id(0).to(tl.int64) * {text.tile}")
        text.add(f"end = tl.minimum(begin + {text.tile}, count)")
        with text.edges():
            text.row("x_row", "x", "sender", paths.x_dim)
            text.row("g_row", "g", "receiver", paths.out_dim)
            for piece in text.pieces:
                text.add(f"sum_{piece} = tl.zeros([{text.tile}, {text.piece}], tl.{scalar})")
            for block in by_x_block(coupled):
                some = text.at_once(len(block))
                for first in range(0, len(block), some):
                    _add_channels(text, block[first : first + some], paths)
            for piece in text.pieces:
                text.add(f"unit = {piece} + tl.arange(0, {text.piece})[None, :]")
                pointer = f"by_hidden + edge * {hidden} + unit"
                text.add(f"tl.store({pointer}, sum_{piece}{masked(*text.layer_masks())})")
    return Kernel("by_hidden", str(text), arguments, tile, text.tile, 1, 0)


def _add_channels(text: TileText, members: list[CoupledPath], paths: Paths) -> None:
    """Write what the weights of some paths from the same block of the input add to the sums."""
    count = members[0].channels
    text.load_harmonics(used_harmonics(members), paths.harmonics_dim)
    with text.inside(f"for first in range(0, {count}, {text.channels})"):
        text.lanes("first", count)
        loaded: set[str] = set()
        for member in members:
            load_ends(text, member, loaded)
            text.add(f"cotangent = {_weight_cotangent(member)}")
            for piece in text.pieces:
                text.load_matrix(member.path.weight_start, str(piece))
                product = text.product("cotangent.to(maps.dtype)", "tl.trans(maps)", f"sum_{piece}")
                text.add(f"sum_{piece} = {product}")


def matrix_kernel(paths: Paths, scalar: str, tile: Tile, hidden: int) -> Kernel:
    """Return the kernel of the gradient by the matrix, ``Σ_e hidden_eh Σ_j Y_ej v_ej``.

    Each program sums a share of the edges for some paths and channels.

    Arguments: x, harmonics, hidden, cotangent g, sender, receiver, the sums of all shares [shares, H, weight_numel],
    and the number of edges. Launch it for the number of shares.
    """
    text = tile_text(paths, scalar, tile, hidden)
    height = text.piece * len(text.pieces)
    most = max(1, _ROWS // (height * words(scalar)))
    parts = [
        block[first : first + most]
        for block in by_x_block(coupled_paths(paths))
        for first in range(0, len(block), most)
    ]
    arguments = "x", "harmonics", "hidden", "g", "sender", "receiver", "shares", "count"
    inputs = ", ".join(arguments[:-2])
    for n, members in enumerate(parts):
        _part(text, f"part_{n}", members, paths)
    pieces = [-(-members[0].channels // tile.channels) for members in parts]
    tasks, first = sum(pieces), 0
    with text.function("by_matrix", arguments, '@triton.jit(do_not_specialize=["count"])'):
        text.row_and_task(tasks)
        text.add(f"share = tl.cdiv(tl.cdiv(count, rows), {text.tile}) * {text.tile}")
        text.add("begin = row * share")
        text.add("end = tl.minimum(begin + share, count)")
        for n, count in enumerate(pieces):
            with text.inside(f"if (task >= {first}) & (task < {first + count})"):
                pointer = f"shares + row * {hidden * paths.weight_numel}"
                text.add(f"part_{n}({inputs}, begin, end, {pointer}, (task - {first}) * {tile.channels})")
            first += count
    held = min(most, max(map(len, parts))) * height * tile.channels * words(scalar) // (32 * tile.warps)
    return Kernel("by_matrix", str(text), arguments, tile, 1, tasks, held)


def _part(text: TileText, name: str, members: list[CoupledPath], paths: Paths) -> None:
    """Write the function that sums some paths from the same block of the input, for the channels from ``first``."""
    arguments = "x", "harmonics", "hidden", "g", "sender", "receiver", "begin", "end", "share", "first"
    with text.function(name, arguments):
        text.lanes("first", members[0].channels)
        sums = [(n, member, piece) for n, member in enumerate(members) for piece in text.pieces]
        for n, _, piece in sums:
            text.add(f"sum_{n}_{piece} = tl.zeros([{text.piece}, {text.channels}], tl.{text.scalar})")
        with text.edges():
            text.row("x_row", "x", "sender", paths.x_dim)
            text.row("g_row", "g", "receiver", paths.out_dim)
            text.load_harmonics(used_harmonics(members), paths.harmonics_dim)
            text.edge_weights(paths.weight_numel)
            loaded: set[str] = set()
            for n, member in enumerate(members):
                load_ends(text, member, loaded)
                text.add(f"cotangent_{n} = {_weight_cotangent(member)}")
            for piece in text.pieces:
                if len(text.pieces) > 1:
                    text.load_hidden(str(piece))
                for n, _ in enumerate(members):
                    total = f"sum_{n}_{piece}"
                    product = text.product("tl.trans(layer)", f"cotangent_{n}.to(layer.dtype)", total)
                    text.add(f"{total} = {product}")
        for n, member, piece in sums:
            text.add(f"height = {piece} + tl.arange(0, {text.piece})[:, None]")
            pointer = f"share + height * {text.width} + channel + {member.path.weight_start}"
            text.add(f"tl.store({pointer}, sum_{n}_{piece}{masked(*text.matrix_masks())})")


def _weight_cotangent(member: CoupledPath) -> str:
    """Return ``Σ_j Y_j v_j`` as ``Σ_k g_k Σ_i M_ik x_i``, which takes fewer products than computing v_j."""
    rows: dict[int, list[str]] = {}
    for entry in member.entries:
        coupling = linear([(factor, f"y_{j}") for j, factor in entry.terms])
        rows.setdefault(entry.k, []).append(f"({coupling}) * x_{member.x_column(entry.i)}")
    return " + ".join(f"g_{member.out_column(k)} * ({' + '.join(terms)})" for k, terms in rows.items())
