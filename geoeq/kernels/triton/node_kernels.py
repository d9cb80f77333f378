"""Generate the kernels that sum over the edges of a node: receivers couple x, senders propagate cotangents back.

Coefficients are constants in the text. Sums are kept in registers and follow the order of the edges, without atomics.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from geoeq.kernels.coupled_paths import CoupledPath, Entry, coupled_paths
from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.kernel import Kernel, Tile, words
from geoeq.kernels.triton.text import Text, linear, used_harmonics
from geoeq.kernels.triton.tile_text import tile_text

__all__ = ["radial_receiver_kernel", "radial_sender_kernel", "receiver_kernel", "sender_kernel"]

#: Maximum number of 32-bit registers for the sums of a thread with one channel; further paths go to another program.
_SUMS = 64


@dataclass(frozen=True)
class _Gather:
    """A kernel whose rows sum over their edges, each of which reads a row of ``far``.

    The two kernels of this kind are each other's transpose: one maps x_i to out_k, the other g_k to x_i.
    """

    name: str
    near: str
    far: str
    ends: str  # the row of far of each edge
    pointers: str  # the first edge of each row
    transposed: bool  # maps k to i; edges are then listed in ``order``

    def arguments(self, weights: tuple[str, ...]) -> tuple[str, ...]:
        """Return the arguments of the kernel, given those from which weights are computed."""
        listed = ("order",) if self.transposed else ()
        return self.far, "harmonics", *weights, self.ends, *listed, self.pointers, self.near

    def ends_of(self, member: CoupledPath, entry: Entry) -> tuple[int, int]:
        """Return the source and target columns of an entry."""
        x, out = member.x_column(entry.i), member.out_column(entry.k)
        return (out, x) if self.transposed else (x, out)


_RECEIVER = _Gather("receiver", "out", "x", "sender", "row_pointers", transposed=False)
_SENDER = _Gather("sender", "x", "g", "receiver", "pointers", transposed=True)


def _parts(kind: _Gather, coupled: list[CoupledPath], most: int) -> list[list[CoupledPath]]:
    """Divide paths into parts of at most ``most`` sums; a part has all paths into its sums, with equal channels."""
    sums: dict[tuple[int, int], list[CoupledPath]] = {}
    for member in coupled:
        target = (member.path.x_block, 0) if kind.transposed else (member.path.out_block, member.path.out_channel)
        sums.setdefault(target, []).append(member)
    parts: list[list[CoupledPath]] = []
    for members in sorted(sums.values(), key=lambda members: -members[0].channels):
        joined = [*parts[-1], *members] if parts else []
        if joined and joined[0].channels == members[0].channels and len(_targets(kind, joined)) <= most:
            parts[-1] = joined
        else:
            parts.append(members)
    return parts


def receiver_kernel(paths: Paths, scalar: str, tile: Tile, weighted: bool) -> Kernel:
    """Return the kernel of ``out_n,p,k = Σ_e w_ep Σ_i M^p_ik x_i`` over the edges e into receiver n.

    Arguments: x [N, x_dim], harmonics [E, harmonics_dim], weights [E, weight_numel] (not read if not ``weighted``),
    sender [E], row_pointers [N + 1], and the result [N, out_dim].
    """
    return _gather(_RECEIVER, paths, Text(scalar, tile.channels), tile, weighted)


def sender_kernel(paths: Paths, scalar: str, tile: Tile, weighted: bool) -> Kernel:
    """Return the kernel of the gradient by x: ``Σ_e Σ_p w_ep Σ_k M^p_ik g_n,p,k`` over the edges e from sender s to n.

    Arguments: cotangent g [N, out_dim], harmonics, weights, receiver [E], order [E] of the edges by sender, pointers
    [N + 1] into it, and the result [N, x_dim]; blocks that no path reads are not written.
    """
    return _gather(_SENDER, paths, Text(scalar, tile.channels), tile, weighted)


def radial_receiver_kernel(paths: Paths, scalar: str, tile: Tile, hidden: int) -> Kernel:
    """Return the ``receiver_kernel`` that computes its weights from ``hidden`` numbers of each edge and a matrix.

    Arguments: those of ``receiver_kernel``, with hidden [E, H] and matrix [H, weight_numel] instead of weights.
    """
    return _gather(_RECEIVER, paths, tile_text(paths, scalar, tile, hidden), tile, weighted=True)


def radial_sender_kernel(paths: Paths, scalar: str, tile: Tile, hidden: int) -> Kernel:
    """Return the ``sender_kernel`` that computes its weights from ``hidden`` numbers of each edge and a matrix.

    Arguments: those of ``sender_kernel``, with hidden [E, H] and matrix [H, weight_numel] instead of weights.
    """
    return _gather(_SENDER, paths, tile_text(paths, scalar, tile, hidden), tile, weighted=True)


def _gather(kind: _Gather, paths: Paths, text: Text, tile: Tile, weighted: bool) -> Kernel:
    near, far = (paths.x_dim, paths.out_dim) if kind.transposed else (paths.out_dim, paths.x_dim)
    parts = _parts(kind, coupled_paths(paths), _SUMS // (words(text.scalar) * text.copies(tile)))
    for n, members in enumerate(parts):
        _part(text, f"part_{n}", kind, members, far, paths, weighted)
    pieces = [-(-members[0].channels // tile.channels) for members in parts]
    tasks, first, arguments = sum(pieces), 0, kind.arguments(text.weights)
    with text.function(kind.name, arguments):
        text.row_and_task(tasks)
        text.add(f"begin = tl.load({kind.pointers} + row)")
        text.add(f"end = tl.load({kind.pointers} + row + 1)")
        shared = ", ".join(name for name in arguments if name not in (kind.pointers, kind.near))
        for n, count in enumerate(pieces):
            with text.inside(f"if (task >= {first}) & (task < {first + count})"):
                pointer = f"{kind.near} + row * {near}"
                text.add(f"part_{n}({shared}, begin, end, {pointer}, (task - {first}) * {tile.channels})")
            first += count
    held = max(_held(kind, members) for members in parts) * words(text.scalar) * tile.per_thread
    return Kernel(kind.name, str(text), arguments, tile, 1, tasks, held)


def _targets(kind: _Gather, members: list[CoupledPath]) -> list[int]:
    return sorted({kind.ends_of(member, entry)[1] for member in members for entry in member.entries})


def _held(kind: _Gather, members: list[CoupledPath]) -> int:
    """Return the number of values held in registers: sums, and sources of several paths."""
    sources = Counter(
        source for member in members for source in {kind.ends_of(member, entry)[0] for entry in member.entries}
    )
    return len(_targets(kind, members)) + sum(paths > 1 for paths in sources.values())


def _part(
    text: Text, name: str, kind: _Gather, members: list[CoupledPath], width: int, paths: Paths, weighted: bool
) -> None:
    """Write the function that computes the sums of some paths, for the channels from ``first``."""
    arguments = [name for name in kind.arguments(text.weights) if name not in (kind.pointers, kind.near)]
    with text.function(name, [*arguments, "begin", "end", kind.near, "first"]):
        text.lanes("first", members[0].channels)
        for target in _targets(kind, members):
            text.zeros(f"to_{target}")
        members, some = sorted(members, key=lambda member: member.path.x_block), text.at_once(len(members))
        for first in range(0, len(members), some):
            _sums(text, kind, members[first : first + some], width, paths, weighted)
        for target in _targets(kind, members):
            text.store_sum(f"{kind.near} + channel", target, f"to_{target}")


def _sums(text: Text, kind: _Gather, members: list[CoupledPath], width: int, paths: Paths, weighted: bool) -> None:
    """Write the loop over edges that adds the contributions of some paths."""
    with text.edges(listed=kind.transposed):
        text.row("far_row", kind.far, kind.ends, width)
        if weighted:
            text.edge_weights(paths.weight_numel)
        text.load_harmonics(used_harmonics(members), paths.harmonics_dim)
        loaded: set[int] = set()
        for member in members:
            ends = [kind.ends_of(member, entry) for entry in member.entries]
            for source in sorted({source for source, _ in ends} - loaded):
                text.load(f"from_{source}", "far_row + channel", source)
                loaded.add(source)
            _path(text, member, ends, weighted)


def _path(text: Text, member: CoupledPath, ends: list[tuple[int, int]], weighted: bool) -> None:
    sources, targets = ({end[side] for end in ends} for side in (0, 1))
    if weighted:
        text.load_weight(member.path.weight_start)
    early = weighted and len(sources) <= len(targets)  # multiply the weight into the fewer of the two
    for source in sorted(sources) if early else ():
        text.add(f"weighed_{source} = weight * from_{source}")
    for target in sorted(targets):
        products = [
            f"({linear([(factor, f'y_{j}') for j, factor in entry.terms])}) * {'weighed' if early else 'from'}_{source}"
            for entry, (source, other) in zip(member.entries, ends, strict=True)
            if other == target
        ]
        if weighted and not early:
            text.add(f"to_{target} += weight * ({' + '.join(products)})")
        else:
            for product in products:
                text.add(f"to_{target} += {product}")
