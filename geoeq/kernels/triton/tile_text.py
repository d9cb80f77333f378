"""Write the text of Triton functions that process a tile of edges at once, with weights from a hidden layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.kernel import Tile, words
from geoeq.kernels.triton.text import Text, masked

__all__ = ["TileText", "tile_text"]

#: Maximum number of paths that share one loop over edges, limited by registers.
_PATHS = 2

#: Maximum number of entries of the matrix that one loop over edges reads into shared memory; float32 is held twice.
_MATRIX = 4096


@dataclass(kw_only=True)
class TileText(Text):
    """Functions in which an array over channels is a matrix [edges, channels]: ``edge`` is a column, ``channel`` a row.

    Weights are computed where they are used, ``w_ep = Σ_h hidden_eh matrix_hp``, as a matrix product.

    Attributes:
        tile: number of edges, a power of two, at least 16.
        hidden: number of columns of the hidden layer.
        width: number of columns of the matrix, all weights of an edge.
        piece: number of columns of the hidden layer multiplied at once, a power of two, at least 16.
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
        """First column of each piece of the hidden layer."""
        return range(0, self.hidden, self.piece)

    def copies(self, tile: Tile) -> int:
        return tile.per_thread

    def at_once(self, paths: int) -> int:
        """Return a small number: Triton reads the paths' parts of the matrix into shared memory before the loop."""
        return max(1, min(_PATHS, _MATRIX // (words(self.scalar) * self.piece * self.channels)))

    def row_and_task(self, tasks: int) -> None:
        """Write row and task; rows of a task are consecutive, so that their part of the matrix can stay in L1."""
        self.add(f"rows = tl.num_programs(0) // {tasks}")
        self.add("row = (tl.program_id(0) % rows).to(tl.int64)")
        self.add("task = tl.program_id(0) // rows")

    @contextlib.contextmanager
    def edges(self, listed: bool = False) -> Iterator[None]:
        with self.inside(f"for at in range(begin, end, {self.tile})"):
            self.add(f"place = at + tl.arange(0, {self.tile})[:, None]")
            self._there = "there"
            self.add("there = place < end")
            self.add(f"edge = tl.load(order + place{self._edge_mask})" if listed else "edge = place")
            yield
        self._there = ""

    def lanes(self, first: str, count: int) -> None:
        self.add(f"channel = {first} + tl.arange(0, {self.channels})[None, :]")
        self._narrow = f"(channel < {count})" if count % self.channels else ""

    def product(self, first: str, second: str, to: str = "") -> str:
        """Return the product of two matrices, added ``to`` a third.

        Tensor cores multiply float32 as three products of TF32 ("tf32x3"), as exact as float32; a single TF32 product
        has 3 digits.
        """
        precision = "" if self.scalar == "float64" else ', input_precision="tf32x3"'
        return f"tl.dot({first}, {second}{f', {to}' if to else ''}, out_dtype=tl.{self.scalar}{precision})"

    def edge_weights(self, width: int) -> None:
        self.add(f"hidden_row = hidden + edge * {self.hidden}")
        if len(self.pieces) == 1:
            self.load_hidden("0")

    def load_hidden(self, first: str) -> None:
        """Write ``layer``, the columns of the hidden layer from ``first``, of each edge."""
        self.add(f"unit = {first} + tl.arange(0, {self.piece})[None, :]")
        mask = masked(*self.layer_masks())
        self.add(f"layer = tl.load(hidden_row + unit{mask}, other=0.0)")

    def load_matrix(self, start: int, first: str) -> None:
        """Write ``maps``, rows of the matrix from ``first``, of the path whose weights begin in column ``start``."""
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
        """Sum over channels as early as possible, because one sum per channel occupies registers."""
        for j in columns:
            self.add(f"total_{j} += tl.sum(sum_{j}, axis=1, keep_dims=True)")

    def store_edge_sum(self, pointer: str, column: int | None) -> None:
        self.add(f"tl.store({pointer}, {'0.0' if column is None else f'total_{column}'}{masked(self._there)})")

    def store_sum(self, base: str, offset: int, value: str) -> None:
        self.store(base, offset, f"tl.sum({value}, axis=0, keep_dims=True)")

    def layer_masks(self) -> tuple[str, str]:
        """Return the masks of edges and of columns of the hidden layer."""
        return self._there, self._units("unit")

    def matrix_masks(self) -> tuple[str, str]:
        """Return the masks of rows of the matrix and of channels."""
        return self._units("height"), self._narrow

    def _units(self, name: str) -> str:
        return f"({name} < {self.hidden})" if self.hidden % self.piece else ""


def tile_text(paths: Paths, scalar: str, tile: Tile, hidden: int) -> TileText:
    """Return an empty text for tiles of this size."""
    piece = min(tile.units, max(16, 1 << (hidden - 1).bit_length()))
    return TileText(scalar, tile.channels, tile=tile.together, hidden=hidden, width=paths.weight_numel, piece=piece)
