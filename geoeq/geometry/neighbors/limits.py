"""What is too large to be searched: said before the memory, or the process, ends."""

from __future__ import annotations

from torch import Tensor

from geoeq.errors import ExtentError
from geoeq.geometry.lattice import Lattice, extents

__all__ = ["check_extents", "image_ranges", "oversized"]

#: Extent over cutoff above which cell lists are not made: vesin would end the process at a few times this.
EXTENT_LIMIT = 1e4

#: Images of one cell within the cutoff: ten times as many as a cell of 1 Å and a cutoff of 20 Å need.
IMAGE_LIMIT = 1e6

#: Precision of fractional coordinates, with much to spare; an image too many does no harm.
FRACTION_MARGIN = 1e-3


def image_ranges(lattice: Lattice, cutoff: float) -> list[int]:
    """How far, in cells along each vector, the cutoff reaches from the nearest image, in any of the graphs.

    Raises:
        ExtentError: it reaches so many that neither the memory nor the edges can be what was meant.
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
    """Which graphs [G] extend over too many cutoffs for cell lists, or are not finite."""
    return ~(extents(positions, batch, num_graphs, lattice) <= EXTENT_LIMIT * cutoff)


def check_extents(positions: Tensor, batch: Tensor, num_graphs: int, cutoff: float, lattice: Lattice | None) -> None:
    """Raise an ExtentError that names the graph for which cell lists would need more memory than there is."""
    large = oversized(positions, batch, num_graphs, cutoff, lattice)
    if bool(large.any()):
        graph = int(large.nonzero()[0, 0])
        extent = float(extents(positions, batch, num_graphs, lattice)[graph])
        raise ExtentError(
            f"Graph {graph} extends over {extent:.3g} Å, more than {EXTENT_LIMIT:.0e} times the cutoff of {cutoff} Å. "
            f"Check that its positions are in Å and that no atom has flown away; small graphs of this extent can be "
            f"searched with method='brute'."
        )
