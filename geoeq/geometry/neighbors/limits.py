"""Limits of the neighbour search, checked before memory runs out or the process crashes."""

from __future__ import annotations

from torch import Tensor

from geoeq.errors import ExtentError
from geoeq.geometry.lattice import Lattice, extents

__all__ = ["check_extents", "image_ranges", "oversized"]

#: Ratio of extent to cutoff above which cell lists are not used: vesin crashes the process at a few times this value.
EXTENT_LIMIT = 1e4

#: Maximum number of images of a cell within the cutoff: ten times that of a cell of 1 Å and a cutoff of 20 Å.
IMAGE_LIMIT = 1e6

#: Generous bound on the rounding of fractional coordinates; a superfluous image does no harm.
FRACTION_MARGIN = 1e-3


def image_ranges(lattice: Lattice, cutoff: float) -> list[int]:
    """Return the number of cells along each vector that the cutoff reaches from the nearest image, in any graph.

    Raises:
        ExtentError: the cutoff reaches an absurd number of images.
    """
    # |fraction + shift| * spacing < cutoff, where the nearest image has |fraction| <= 1/2.
    reach = cutoff * lattice.reciprocal.norm(dim=1) + 0.5 + FRACTION_MARGIN  # [G, 3]
    ranges = (reach.ceil() - 1).clamp(min=0)
    images = (2 * ranges + 1).prod(1)  # [G]
    if bool((images > IMAGE_LIMIT).any()):
        graph = int(images.argmax())
        raise ExtentError(
            f"A cutoff of {cutoff} Å reaches {float(images[graph]):.1e} images of the cell of graph {graph}. "
            f"Check that the cell and the cutoff have the same unit (Å)."
        )
    widest: list[int] = ranges.amax(0).long().tolist()
    return widest


def oversized(positions: Tensor, batch: Tensor, num_graphs: int, cutoff: float, lattice: Lattice | None) -> Tensor:
    """Return which graphs [G] extend over too many cutoffs for cell lists, or are not finite."""
    return ~(extents(positions, batch, num_graphs, lattice) <= EXTENT_LIMIT * cutoff)


def check_extents(positions: Tensor, batch: Tensor, num_graphs: int, cutoff: float, lattice: Lattice | None) -> None:
    """Raise an ExtentError that names the graph, if one extends over too many cutoffs for cell lists."""
    large = oversized(positions, batch, num_graphs, cutoff, lattice)
    if bool(large.any()):
        graph = int(large.nonzero()[0, 0])
        extent = float(extents(positions, batch, num_graphs, lattice)[graph])
        raise ExtentError(
            f"Graph {graph} extends over {extent:.3g} Å, more than {EXTENT_LIMIT:.0e} times the cutoff of {cutoff} Å. "
            f"Check that its positions are in Å and that no atom has flown away; small graphs of this extent can be "
            f"searched with method='brute'."
        )
