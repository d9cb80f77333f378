"""Generate the kernels over edges: gradients by harmonics and by weights, with coefficients as constants."""

from __future__ import annotations

from geoeq.kernels.coupled_paths import CoupledPath, by_x_block, coupled_paths
from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.kernel import Kernel, Tile, words
from geoeq.kernels.triton.text import Text, linear, used_harmonics
from geoeq.kernels.triton.tile_text import tile_text

__all__ = ["edge_kernel", "load_ends", "radial_harmonics_kernel"]


def edge_kernel(paths: Paths, scalar: str, tile: Tile, weighted: bool, by_harmonics: bool, by_weights: bool) -> Kernel:
    """Return the kernel of each edge's gradients: by weights ``Σ_j Y_j v_j``, by harmonics ``Σ_p Σ_u w v_j``.

    Both need ``v_j = Σ_ik C_ijk x_i g_k`` of each path and channel. Arguments: x, harmonics, weights, cotangent g,
    sender, receiver, the results by harmonics [E, harmonics_dim] and by weights [E, weight_numel], and the number of
    edges. A result that is not requested is not accessed.
    """
    return _edge(paths, Text(scalar, tile.channels), tile, weighted, by_harmonics, by_weights)


def radial_harmonics_kernel(paths: Paths, scalar: str, tile: Tile, hidden: int) -> Kernel:
    """Return the kernel of the gradient by harmonics, with weights from ``hidden`` numbers of each edge and a matrix.

    Arguments: x, harmonics (not read), hidden [E, H], matrix [H, weight_numel], cotangent g, sender, receiver, the
    result [E, harmonics_dim], and the number of edges.
    """
    return _edge(paths, tile_text(paths, scalar, tile, hidden), tile, True, by_harmonics=True, by_weights=False)


def _edge(paths: Paths, text: Text, tile: Tile, weighted: bool, by_harmonics: bool, by_weights: bool) -> Kernel:
    coupled, edges = coupled_paths(paths), tile.edges * tile.together
    used = used_harmonics(coupled)
    results = ("by_harmonics", "by_weights") if text.weights == ("weights",) else ("by_harmonics",)
    arguments = "x", "harmonics", *text.weights, "g", "sender", "receiver", *results, "count"
    with text.function("edge", arguments, '@triton.jit(do_not_specialize=["count"])'):
        text.add(f"begin = tl.program_id(0).to(tl.int64) * {edges}")
        text.add(f"end = tl.minimum(begin + {edges}, count)")
        with text.edges():
            text.row("x_row", "x", "sender", paths.x_dim)
            text.row("g_row", "g", "receiver", paths.out_dim)
            if by_weights:
                text.load_harmonics(used, paths.harmonics_dim)
                text.add(f"by_weights_row = by_weights + edge * {paths.weight_numel}")
            if by_harmonics:
                text.edge_weights(paths.weight_numel)
                text.begin_sums(used)
            for members in by_x_block(coupled):
                some = text.at_once(len(members))
                for first in range(0, len(members), some):
                    _channels(text, members[first : first + some], weighted, by_harmonics, by_weights)
            for j in range(paths.harmonics_dim) if by_harmonics else ():
                text.store_edge_sum(f"by_harmonics + edge * {paths.harmonics_dim} + {j}", j if j in used else None)
    ends = max(2 * (member.path.degrees[0] + member.path.degrees[2] + 1) for member in coupled)
    held = (len(used) * by_harmonics + ends) * words(text.scalar) * tile.per_thread
    return Kernel("edge", str(text), arguments, tile, edges, 1, held)


def _channels(text: Text, members: list[CoupledPath], weighted: bool, by_harmonics: bool, by_weights: bool) -> None:
    """Write the loop over all channels of some paths from one block of the input."""
    count, used = members[0].channels, used_harmonics(members) if by_harmonics else []
    text.begin_channel_sums(used)
    with text.inside(f"for first in range(0, {count}, {text.channels})"):
        text.lanes("first", count)
        loaded: set[str] = set()
        for member in members:
            load_ends(text, member, loaded)
            values, start = _values(text, member), member.path.weight_start
            if by_weights:
                text.store("by_weights_row + channel", start, " + ".join(f"y_{j} * value_{j}" for j in values))
            if by_harmonics and weighted:
                text.load_weight(start)
            for j in values if by_harmonics else ():
                text.add(f"sum_{j} += {'weight * ' if weighted else ''}value_{j}")
    text.end_channel_sums(used)


def load_ends(text: Text, member: CoupledPath, loaded: set[str]) -> None:
    """Write the loads of ``x_`` and ``g_`` of the columns that a path couples, except those already loaded."""
    for entry in member.entries:
        for row, column in (("x", member.x_column(entry.i)), ("g", member.out_column(entry.k))):
            if f"{row}_{column}" not in loaded:
                text.load(f"{row}_{column}", f"{row}_row + channel", column)
                loaded.add(f"{row}_{column}")


def _values(text: Text, member: CoupledPath) -> list[int]:
    """Write ``value_j``, the v_j of a path; return the list of j."""
    values: dict[int, list[tuple[float, str]]] = {}
    for entry in member.entries:
        product = f"product_{entry.i}_{entry.k}"
        text.add(f"{product} = x_{member.x_column(entry.i)} * g_{member.out_column(entry.k)}")
        for j, factor in entry.terms:
            values.setdefault(j, []).append((factor, product))
    for j, terms in values.items():
        text.add(f"value_{j} = {linear(terms)}")
    return list(values)
