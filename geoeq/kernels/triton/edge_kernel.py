"""The kernel over edges: derivatives by harmonics and by weights, every coefficient a constant in it."""

from __future__ import annotations

from geoeq.kernels.coupled_paths import CoupledPath, by_x_block, coupled_paths
from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.kernel import Kernel, Tile, words
from geoeq.kernels.triton.text import Text, linear, used_harmonics

__all__ = ["edge_kernel"]


def edge_kernel(paths: Paths, scalar: str, tile: Tile, weighted: bool, by_harmonics: bool, by_weights: bool) -> Kernel:
    """The derivatives of each edge, by its weights ``Σ_j Y_j v_j`` and by its harmonics ``Σ_p Σ_u w v_j``.

    Both need ``v_j = Σ_ik C_ijk x_i g_k`` of each path and channel. Arguments: x, harmonics, weights, cotangent g,
    sender, receiver, the results by harmonics [E, harmonics_dim] and by weights [E, weight_numel], of which the one
    that is not asked for is not touched, and the number of edges.
    """
    text, coupled = Text(scalar, tile.channels), coupled_paths(paths)
    used = used_harmonics(coupled)
    arguments = "x", "harmonics", "weights", "g", "sender", "receiver", "by_harmonics", "by_weights", "count"
    with text.function("edge", arguments, '@triton.jit(do_not_specialize=["count"])'):
        text.add(f"begin = tl.program_id(0).to(tl.int64) * {tile.edges}")
        with text.inside(f"for edge in range(begin, tl.minimum(begin + {tile.edges}, count))"):
            text.add(f"x_row = x + tl.load(sender + edge) * {paths.x_dim}")
            text.add(f"g_row = g + tl.load(receiver + edge) * {paths.out_dim}")
            if by_weights:
                text.load_harmonics(used, paths.harmonics_dim)
            for j in used if by_harmonics else ():
                text.zeros(f"sum_{j}")
            for members in by_x_block(coupled):
                _channels(text, members, paths, weighted, by_harmonics, by_weights)
            for j in range(paths.harmonics_dim) if by_harmonics else ():
                place = f"by_harmonics + edge * {paths.harmonics_dim} + {j}"
                text.add(f"tl.store({place}, {f'tl.sum(sum_{j}, axis=0)' if j in used else '0.0'})")
    ends = max(2 * (member.path.degrees[0] + member.path.degrees[2] + 1) for member in coupled)
    held = (len(used) * by_harmonics + ends) * words(scalar) * tile.per_thread
    return Kernel("edge", str(text), arguments, tile, tile.edges, 1, held)


def _channels(
    text: Text, members: list[CoupledPath], paths: Paths, weighted: bool, by_harmonics: bool, by_weights: bool
) -> None:
    """All channels of the paths from one block of the input."""
    count = members[0].channels
    with text.inside(f"for first in range(0, {count}, {text.channels})"):
        text.lanes("first", count)
        loaded: set[str] = set()
        for member in members:
            values: dict[int, list[tuple[float, str]]] = {}
            for entry in member.entries:
                factors = {"x": member.x_column(entry.i), "g": member.out_column(entry.k)}
                for row, column in factors.items():
                    if f"{row}_{column}" not in loaded:
                        text.load(f"{row}_{column}", f"{row}_row + channel", column)
                        loaded.add(f"{row}_{column}")
                product = f"product_{entry.i}_{entry.k}"
                text.add(f"{product} = x_{factors['x']} * g_{factors['g']}")
                for j, factor in entry.terms:
                    values.setdefault(j, []).append((factor, product))
            for j, terms in values.items():
                text.add(f"value_{j} = {linear(terms)}")
            place, start = f"edge * {paths.weight_numel} + channel", member.path.weight_start
            if by_weights:
                text.store(f"by_weights + {place}", start, " + ".join(f"y_{j} * value_{j}" for j in values))
            if by_harmonics and weighted:
                text.load("weight", f"weights + {place}", start)
            for j in values if by_harmonics else ():
                text.add(f"sum_{j} += {'weight * ' if weighted else ''}value_{j}")
