"""The text of Triton functions that take a tile of edges at once, and make their weights of a hidden layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.kernel import Tile, words
from geoeq.kernels.triton.text import Text, masked

__all__ = ["TileText", "tile_text"]

#: Paths that go through one loop over edges at most, for the sake of registers.
_PATHS = 2

#: Numbers of the matrix that one loop over edges may read: they are held in shared memory, as float32 twice.
_MATRIX = 4096


@dataclass(kw_only=True)
class TileText(Text):
    """A number for each channel is here a matrix of edges and channels: ``edge`` is a column, ``channel`` a row.

    Weights are made where they are used, ``w_ep = Σ_h hidden_eh matrix_hp``, as a product of two matrices.

    Attributes:
        tile: number of edges, a power of two from 16 on.
        hidden: columns of the hidden layer.
        width: columns of the matrix, all weights of an edge.
        piece: columns of the hidden layer that are multiplied at once, a power of two from 16 on.
    """

    tile: int
    hidden: int
    width: int
    piece: int
    weights: tuple[str, ...] = ("hidden", "matrix")

    @property
    def shape(self) -> str:
        return f"[{self.tile}, {self.channels}]"

    @property
    def pieces(self) -> range:
        """Where each begins."""
        return range(0, self.hidden, self.piece)

    def copies(self, tile: Tile) -> int:
        return tile.per_thread

    def at_once(self, paths: int) -> int:
        """Few: Triton reads their parts of the matrix before the loop, into shared memory, where these have to fit."""
        return max(1, min(_PATHS, _MATRIX // (words(self.scalar) * self.piece * self.channels)))

    def row_and_task(self, tasks: int) -> None:
        """Those of a task in succession: the part of the matrix that all read can stay in the first cache."""
        self.add(f"rows = tl.num_programs(0) // {tasks}")
        self.add("row = (tl.program_id(0) % rows).to(tl.int64)")
        self.add("task = tl.program_id(0) // rows")

    @contextlib.contextmanager
    def edges(self, listed: bool = False) -> Iterator[None]:
        with self.inside(f"for at in range(begin, end, {self.tile})"):
            self.add(f"place = at + tl.arange(0, {self.tile})[:, None]")
            self._there = "there"
            self.add("there = place < end")
            self.add(f"edge = tl.load(order + place{self._of_edge})" if listed else "edge = place")
            yield
        self._there = ""

    def lanes(self, first: str, count: int) -> None:
        self.add(f"channel = {first} + tl.arange(0, {self.channels})[None, :]")
        self._narrow = f"(channel < {count})" if count % self.channels else ""

    def product(self, first: str, second: str, to: str = "") -> str:
        """Of two matrices, added ``to`` one.

        Tensor cores multiply float32 as three products of TF32 ("tf32x3"), as exact as float32; one has 3 digits.
        """
        precision = "" if self.scalar == "float64" else ', input_precision="tf32x3"'
        return f"tl.dot({first}, {second}{f', {to}' if to else ''}, out_dtype=tl.{self.scalar}{precision})"

    def edge_weights(self, width: int) -> None:
        self.add(f"hidden_row = hidden + edge * {self.hidden}")
        if len(self.pieces) == 1:
            self.load_hidden("0")

    def load_hidden(self, first: str) -> None:
        """``layer``: columns of the hidden layer from ``first`` on, of each edge."""
        self.add(f"unit = {first} + tl.arange(0, {self.piece})[None, :]")
        mask = masked(*self.layer_masks())
        self.add(f"layer = tl.load(hidden_row + unit{mask}, other=0.0)")

    def load_matrix(self, start: int, first: str) -> None:
        """``maps``: rows of the matrix from ``first`` on, of the path whose weights begin in column ``start``."""
        self.add(f"height = {first} + tl.arange(0, {self.piece})[:, None]")
        mask = masked(*self.matrix_masks())
        other = ", other=0.0" if mask else ""
        self.add(f"maps = tl.load(matrix + height * {self.width} + channel + {start}{mask}{other})")

    def load_weight(self, start: int) -> None:
        if len(self.pieces) == 1:
            self.load_matrix(start, "0")
            self.add(f"weight = {self.product('layer', 'maps')}")
            return
        self.zeros("weight")
        with self.inside(f"for first_unit in range(0, {self.hidden}, {self.piece})"):
            self.load_hidden("first_unit")
            self.load_matrix(start, "first_unit")
            self.add(f"weight = {self.product('layer', 'maps', 'weight')}")

    def begin_sums(self, columns: Sequence[int]) -> None:
        for j in columns:
            self.add(f"total_{j} = tl.zeros([{self.tile}, 1], tl.{self.scalar})")

    def begin_channel_sums(self, columns: Sequence[int]) -> None:
        for j in columns:
            self.zeros(f"sum_{j}")

    def end_channel_sums(self, columns: Sequence[int]) -> None:
        """Channels are added up as soon as can be: a sum for each of them takes registers."""
        for j in columns:
            self.add(f"total_{j} += tl.sum(sum_{j}, axis=1, keep_dims=True)")

    def store_edge_sum(self, place: str, column: int | None) -> None:
        self.add(f"tl.store({place}, {'0.0' if column is None else f'total_{column}'}{masked(self._there)})")

    def store_sum(self, base: str, offset: int, value: str) -> None:
        self.store(base, offset, f"tl.sum({value}, axis=0, keep_dims=True)")

    def layer_masks(self) -> tuple[str, str]:
        """Of edges and of columns of the hidden layer."""
        return self._there, self._units("unit")

    def matrix_masks(self) -> tuple[str, str]:
        """Of rows of the matrix and of channels."""
        return self._units("height"), self._narrow

    def _units(self, name: str) -> str:
        return f"({name} < {self.hidden})" if self.hidden % self.piece else ""


def tile_text(paths: Paths, scalar: str, tile: Tile, hidden: int) -> TileText:
    """An empty text for tiles of that size."""
    piece = min(tile.units, max(16, 1 << (hidden - 1).bit_length()))
    return TileText(scalar, tile.channels, tile=tile.together, hidden=hidden, width=paths.weight_numel, piece=piece)
