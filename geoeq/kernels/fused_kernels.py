"""What a backend with kernels of its own has to offer, and the table of those that do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from geoeq.kernels.backend import Blocks, EdgeTensors
from geoeq.kernels.paths import Paths

__all__ = ["FusedKernels", "kernels_of", "register_kernels"]


class FusedKernels(Protocol):
    """Kernels of one backend; all tensors are contiguous, those of numbers are of one dtype.

    Convolutions: see ``geoeq.kernels.operators.tensor_product`` for Φ. x: [S, paths.x_dim] of S senders; without
    heads they are the
    N nodes. harmonics: [E, paths.harmonics_dim]. weights: [E, paths.weight_numel], or empty where all are one.
    g: paths.out_shape(N). hidden: [E, H] and matrix: [H, paths.weight_numel], whose product are the weights.

    Sums: see ``geoeq.kernels.operators.sums``. values: [E, D], the blocks side by side. weights: [E, H].
    g: [N, D]. receiver: [E], sorted. row_pointers: [N + 1]. scores: [E, H].

    ``wanted`` says which derivatives are asked for; the others are empty.
    """

    @staticmethod
    def available() -> str | None:
        """None where it can be used here, else the reason why not."""

    @staticmethod
    def supports(values: Tensor) -> bool:
        """Whether it is meant for this device and dtype."""

    @staticmethod
    def takes(paths: Paths) -> bool:
        """Whether there are kernels for such paths."""

    @staticmethod
    def conv(x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        """∂Φ/∂g, as g."""

    @staticmethod
    def grad_x(g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        """∂Φ/∂x, [S, x_dim]."""

    @staticmethod
    def grad_edges(
        x: Tensor,
        harmonics: Tensor,
        weights: Tensor,
        g: Tensor,
        edges: EdgeTensors,
        paths: Paths,
        by_harmonics: bool,
        by_weights: bool,
    ) -> tuple[Tensor, Tensor]:
        """∂Φ/∂Y and ∂Φ/∂w, as harmonics and weights; what is not asked for is empty."""

    @staticmethod
    def radial_conv(
        x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        """``conv`` with the weights ``hidden @ matrix``, which never exist for all edges."""

    @staticmethod
    def radial_gradients(
        x: Tensor,
        harmonics: Tensor,
        hidden: Tensor,
        matrix: Tensor,
        g: Tensor,
        edges: EdgeTensors,
        paths: Paths,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, ...]:
        """Its derivatives by x, harmonics, hidden and matrix."""

    @staticmethod
    def radial_second(
        x: Tensor,
        harmonics: Tensor,
        hidden: Tensor,
        matrix: Tensor,
        g: Tensor,
        cotangents: Sequence[Tensor],
        edges: EdgeTensors,
        paths: Paths,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, ...]:
        """The derivatives of those by x, harmonics, hidden, matrix and g: see ``composed_second``."""

    @staticmethod
    def weighted_sum(values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, blocks: Blocks) -> Tensor:
        """``Σ_e weights values`` over the edges into each node, [N, D]."""

    @staticmethod
    def weighted_sum_gradients(
        values: Tensor,
        weights: Tensor,
        g: Tensor,
        receiver: Tensor,
        row_pointers: Tensor,
        blocks: Blocks,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, Tensor]:
        """Its derivatives by values and weights."""

    @staticmethod
    def segment_softmax(scores: Tensor, receiver: Tensor, row_pointers: Tensor) -> Tensor:
        """Softmax over the edges into each node, [E, H]."""

    @staticmethod
    def segment_softmax_gradient(softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor) -> Tensor:
        """``a (c - Σ a c)`` for the softmax a and its cotangent c, the sum over the edges into the same node."""


_KERNELS: dict[str, type[FusedKernels]] = {}


def register_kernels(name: str, kernels: type[FusedKernels]) -> None:
    """Enter the kernels of the backend ``name``."""
    _KERNELS[name] = kernels


def kernels_of(name: str) -> type[FusedKernels]:
    """The kernels of the backend ``name``."""
    return _KERNELS[name]
