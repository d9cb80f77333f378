"""The kernels over edges: derivatives by harmonics and by weights, or by what weights are made of."""

from __future__ import annotations

from geoeq.kernels.coupled_paths import CoupledPath, by_x_block, coupled_paths
from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.kernel import Kernel, Tile, words
from geoeq.kernels.triton.text import Text, linear, used_harmonics
from geoeq.kernels.triton.tile_text import tile_text

__all__ = ["edge_kernel", "load_ends", "radial_edge_kernel", "weight_cotangent"]


def edge_kernel(paths: Paths, scalar: str, tile: Tile, weighted: bool, by_harmonics: bool, by_weights: bool) -> Kernel:
    """The derivatives of each edge, by its weights ``Σ_j Y_j v_j`` and by its harmonics ``Σ_p Σ_u w v_j``.

    Both need ``v_j = Σ_ik C_ijk x_i g_k`` of each path and channel. Arguments: x, harmonics, weights, cotangent g,
    sender, receiver, the results by harmonics [E, harmonics_dim] and by weights [E, weight_numel], of which the one
    that is not asked for is not touched, and the number of edges.
    """
    return _edge(paths, Text(scalar, tile.channels), tile, weighted, by_harmonics, by_weights)


def radial_edge_kernel(
    paths: Paths, scalar: str, tile: Tile, hidden: int, by_harmonics: bool, by_hidden: bool
) -> Kernel:
    """The derivatives of each edge by its harmonics and by its hidden layer, ``Σ_p Σ_u matrix_hp Σ_j Y_j v_j``.

    Arguments: as of ``edge_kernel``, with hidden [E, H] and matrix [H, weight_numel] in the place of weights.
    """
    return _edge(paths, tile_text(paths, scalar, tile, hidden), tile, True, by_harmonics, by_hidden)


def _edge(paths: Paths, text: Text, tile: Tile, weighted: bool, by_harmonics: bool, by_weights: bool) -> Kernel:
    coupled, edges = coupled_paths(paths), tile.edges * tile.together
    used = used_harmonics(coupled)
    results = "by_harmonics", f"by_{text.weights[0]}"
    arguments = "x", "harmonics", *text.weights, "g", "sender", "receiver", *results, "count"
    with text.function("edge", arguments, '@triton.jit(do_not_specialize=["count"])'):
        text.add(f"begin = tl.program_id(0).to(tl.int64) * {edges}")
        text.add(f"end = tl.minimum(begin + {edges}, count)")
        with text.edges():
            text.row("x_row", "x", "sender", paths.x_dim)
            text.row("g_row", "g", "receiver", paths.out_dim)
            if weighted and (by_harmonics or len(text.weights) > 1):
                text.edge_weights(paths.weight_numel)
            if by_weights:
                text.load_harmonics(used, paths.harmonics_dim)
                text.begin_cotangents(paths.weight_numel)
            for j in used if by_harmonics else ():
                text.zeros(f"sum_{j}")
            for members in by_x_block(coupled):
                _channels(text, members, weighted, by_harmonics, by_weights)
            for j in range(paths.harmonics_dim) if by_harmonics else ():
                text.store_edge(f"by_harmonics + edge * {paths.harmonics_dim} + {j}", f"sum_{j}" if j in used else "")
            if by_weights:
                text.end_cotangents()
    ends = max(2 * (member.path.degrees[0] + member.path.degrees[2] + 1) for member in coupled)
    held = (len(used) * by_harmonics + ends) * words(text.scalar) * tile.per_thread
    return Kernel("edge", str(text), arguments, tile, edges, 1, held)


def _channels(text: Text, members: list[CoupledPath], weighted: bool, by_harmonics: bool, by_weights: bool) -> None:
    """All channels of the paths from one block of the input."""
    count = members[0].channels
    with text.inside(f"for first in range(0, {count}, {text.channels})"):
        text.lanes("first", count)
        loaded: set[str] = set()
        for member in members:
            load_ends(text, member, loaded)
            start = member.path.weight_start
            if by_harmonics and weighted:
                text.load_weight(start)
            if not by_harmonics:
                text.cotangent(start, weight_cotangent(member))
                continue
            values = _values(text, member)
            if by_weights:
                text.cotangent(start, " + ".join(f"y_{j} * value_{j}" for j in values))
            for j in values:
                text.add(f"sum_{j} += {'weight * ' if weighted else ''}value_{j}")


def load_ends(text: Text, member: CoupledPath, loaded: set[str]) -> None:
    """``x_`` and ``g_`` of the columns that a path couples, but for those that are loaded."""
    for entry in member.entries:
        for row, column in (("x", member.x_column(entry.i)), ("g", member.out_column(entry.k))):
            if f"{row}_{column}" not in loaded:
                text.load(f"{row}_{column}", f"{row}_row + channel", column)
                loaded.add(f"{row}_{column}")


def _values(text: Text, member: CoupledPath) -> list[int]:
    """``value_j``, the v_j of a path; which j there are."""
    values: dict[int, list[tuple[float, str]]] = {}
    for entry in member.entries:
        product = f"product_{entry.i}_{entry.k}"
        text.add(f"{product} = x_{member.x_column(entry.i)} * g_{member.out_column(entry.k)}")
        for j, factor in entry.terms:
            values.setdefault(j, []).append((factor, product))
    for j, terms in values.items():
        text.add(f"value_{j} = {linear(terms)}")
    return list(values)


def weight_cotangent(member: CoupledPath) -> str:
    """``Σ_j Y_j v_j = Σ_k g_k Σ_i M_ik x_i``: without v_j there is less to multiply."""
    rows: dict[int, list[str]] = {}
    for entry in member.entries:
        coupling = linear([(factor, f"y_{j}") for j, factor in entry.terms])
        rows.setdefault(entry.k, []).append(f"({coupling}) * x_{member.x_column(entry.i)}")
    return " + ".join(f"g_{member.out_column(k)} * ({' + '.join(terms)})" for k, terms in rows.items())
