"""Shape checks shared by the tensor product operations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from geoeq.errors import TensorError
from geoeq.kernels.paths import Paths

__all__ = ["check_features", "check_maps", "check_product"]


def check_product(
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor | None,
    num_edges: int,
    num_rows: int,
    paths: Paths,
    with_heads: bool = False,
) -> None:
    """Check the arguments of a tensor product of ``num_edges`` edges whose features x have ``num_rows`` rows.

    Raises:
        TensorError: a shape does not fit the paths, or weights are missing.
    """
    check_features(x, harmonics, num_edges, num_rows, paths, with_heads)
    if weights is not None and weights.shape != (num_edges, paths.weight_numel):
        raise TensorError(
            f"weights have shape {list(weights.shape)}; this tensor product needs [{num_edges}, {paths.weight_numel}]."
        )
    if weights is None and any(path.mode == "uvw" for path in paths.paths):
        raise TensorError("A tensor product of mode 'uvw' needs weights.")


def check_features(
    x: Tensor, harmonics: Tensor, num_edges: int, num_rows: int, paths: Paths, with_heads: bool = False
) -> None:
    """Check features and harmonics, and whether the paths have attention heads.

    Raises:
        TensorError: a shape does not fit the paths, or paths with heads are used without attention or vice versa.
    """
    if bool(paths.heads) != with_heads:
        raise TensorError("attended_product takes paths with heads (Paths.with_heads), other products those without.")
    if x.dim() != 2 or x.shape != (num_rows, paths.x_dim):
        raise TensorError(f"x has shape {list(x.shape)}; this tensor product needs [{num_rows}, {paths.x_dim}].")
    if harmonics.dim() != 2 or harmonics.shape[0] != num_edges or harmonics.shape[1] < paths.harmonics_dim:
        raise TensorError(
            f"harmonics have shape {list(harmonics.shape)}; this tensor product needs {num_edges} rows of at least "
            f"{paths.harmonics_dim} columns (lmax {max(path.degrees[1] for path in paths.paths)})."
        )


def check_maps(maps: Sequence[Tensor], paths: Paths) -> None:
    """Check that there is one matrix per block of the product, with a row per channel of the block.

    Raises:
        TensorError: the number of matrices or of their rows does not fit the blocks.
    """
    channels = [channels for _, channels in paths.out_blocks]
    if [matrix.shape[0] for matrix in maps] != channels:
        shapes = [list(matrix.shape) for matrix in maps]
        raise TensorError(f"maps have shapes {shapes}; the blocks of this tensor product have {channels} channels.")
