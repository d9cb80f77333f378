"""All kernels for the CPU; convolutions with explicit weights are implemented here."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from geoeq.kernels.llvm.compiler import unavailable
from geoeq.kernels.llvm.head_kernel import head_kernel
from geoeq.kernels.llvm.launch import SCALARS, check_senders, even_bounds, kernel_of, node_bounds, run
from geoeq.kernels.llvm.memory import empty
from geoeq.kernels.llvm.product_kernels import edge_kernel, receiver_kernel, sender_kernel
from geoeq.kernels.llvm.radial import Radial
from geoeq.kernels.llvm.sums import Sums
from geoeq.kernels.operators.tensor_product import EdgeFactors
from geoeq.kernels.paths import Paths
from geoeq.kernels.segments import EdgeTensors

__all__ = ["LLVM"]


class LLVM(Radial, Sums):
    """``FusedKernels`` for the CPU: only requested results are written to arrays that have a row per edge.

    One thread sums the messages of a receiver in the order of its edges, so the result depends neither on the number of
    threads nor on the run. (Weights of the radial form come from torch's matrix products.)
    """

    def available(self) -> str | None:
        return unavailable()

    def supports(self, values: Tensor) -> bool:
        return values.device.type == "cpu" and values.dtype in SCALARS

    def takes(self, paths: Paths) -> bool:
        return all(path.mode == "uvu" for path in paths.paths)

    def conv(self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        check_senders(edges, x.shape[0])
        out = empty(x, paths.out_shape(edges.num_nodes))
        kernel = kernel_of(receiver_kernel, paths, weights.numel() > 0, False, dtype=x.dtype)
        tensors = (x, harmonics, weights, edges.sender, edges.row_pointers, out)
        run(kernel, tensors, edges.num_nodes, node_bounds(edges.row_pointers, paths.work))
        return out

    def grad_x(self, g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        order, pointers = edges.by_sender()
        x = empty(g, (pointers.shape[0] - 1, paths.x_dim))
        kernel = kernel_of(sender_kernel, paths, weights.numel() > 0, False, dtype=g.dtype)
        tensors = (g, harmonics, weights, edges.receiver, order, pointers, x)
        run(kernel, tensors, edges.num_nodes, node_bounds(pointers, paths.work))
        return x

    def grad_edges(
        self, factors: EdgeFactors, edges: EdgeTensors, paths: Paths, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        x, harmonics, weights, g = factors
        by_harmonics, by_weights = wanted
        gradients = (
            empty(harmonics, harmonics.shape) if by_harmonics else harmonics.new_empty(0),
            empty(weights, weights.shape) if by_weights else weights.new_empty(0),
        )
        if paths.heads:
            kernel = kernel_of(head_kernel, paths, by_harmonics, by_weights, dtype=x.dtype)
        else:
            options = weights.numel() > 0, by_harmonics, by_weights, False
            kernel = kernel_of(edge_kernel, paths, *options, dtype=x.dtype)
        tensors = (x, harmonics, weights, g, edges.sender, edges.receiver, *gradients)
        run(kernel, tensors, edges.num_nodes, even_bounds(len(harmonics), paths.work))
        return gradients
