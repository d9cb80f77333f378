"""Convolutions in CUDA graphs: recorded once, and replayed with other numbers in the same tensors."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from geoeq import kernels
from geoeq.kernels.segments import EdgeTensors
from geoeq.kernels.triton.backend import Triton
from geoeq.layers.products.tensor_paths import depthwise_paths
from geoeq.pointers import row_pointers, sorted_by

PATHS = depthwise_paths(o3.Irreps("40x0e+40x1o"), o3.Irreps("0e+1o"), [o3.Irrep("0e"), o3.Irrep("1o")])[0]


class Edges:
    """Fifty random edges of ten nodes."""

    num_nodes = 10

    def __init__(self):
        self.receiver = torch.randint(10, (50,), device="cuda").sort().values
        self.sender = torch.randint(10, (50,), device="cuda")
        self.row_pointers = row_pointers(self.receiver, 10)
        self.by_sender = sorted_by(self.sender, 10)


def plain(edges, x, harmonics, hidden, matrix, g):
    """The convolution and its derivatives; of weights that are made before."""
    weights = (hidden @ matrix).detach().requires_grad_()
    with kernels.use("triton"):
        out = kernels.tensor_product_conv(x, harmonics, weights, edges, PATHS)
    return out, *torch.autograd.grad(out, [x, harmonics, weights], g)


def radial(edges, x, harmonics, hidden, matrix, g):
    """The same with weights that the kernels make."""
    tensors = EdgeTensors(edges.sender, edges.receiver, edges.row_pointers, *edges.by_sender)
    factors = [tensor.detach() for tensor in (x, harmonics, hidden, matrix)]
    every = Triton().radial_gradients(factors, g, tensors, PATHS, (True,) * 4)
    return Triton().radial_conv(factors, tensors, PATHS), *every


@pytest.mark.gpu
@pytest.mark.parametrize("call", [plain, radial], ids=lambda call: call.__name__)
def test_a_recorded_convolution_takes_new_numbers(call):
    edges = Edges()
    shapes = (10, PATHS.x_dim), (50, PATHS.harmonics_dim), (50, 16), (16, PATHS.weight_numel), (10, PATHS.out_dim)
    x, harmonics, *others = (torch.randn(shape, device="cuda") for shape in shapes)
    inputs = [x.requires_grad_(), harmonics.requires_grad_(), *others]

    aside = torch.cuda.Stream()  # kernels are compiled and timed before, on a stream that is not the first
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            call(edges, *inputs)
    torch.cuda.current_stream().wait_stream(aside)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = call(edges, *inputs)
    for _ in range(2):
        with torch.no_grad():
            for tensor in inputs:
                tensor.normal_()
        graph.replay()
        for value, right in zip(recorded, call(edges, *inputs), strict=True):
            assert (value - right).abs().max() <= 1e-5 * (1 + right.abs().max())
