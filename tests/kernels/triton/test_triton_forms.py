"""Kernels that make their weights, sums with weights, and softmax over edges have the numbers of plain PyTorch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from e3nn import o3

from geoeq import kernels
from geoeq.kernels.segments import EdgeTensors
from geoeq.kernels.triton.backend import Triton
from geoeq.kernels.triton.compiler import interpreted, launch, unavailable, usage
from geoeq.kernels.triton.edge_kernel import radial_harmonics_kernel
from geoeq.kernels.triton.layer_kernels import hidden_kernel, matrix_kernel
from geoeq.kernels.triton.node_kernels import radial_receiver_kernel, radial_sender_kernel
from geoeq.kernels.triton.radial import radial_kernels
from geoeq.kernels.triton.sums import softmaxes, sums
from geoeq.layers.products import ClebschGordanProduct
from geoeq.layers.products.tensor_paths import depthwise_paths
from geoeq.pointers import row_pointers, sorted_by

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

installed = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
runs = pytest.mark.skipif(unavailable() is not None, reason=f"{unavailable()}; TRITON_INTERPRET is not 1")
compiles = pytest.mark.skipif(interpreted(), reason="nothing is compiled where TRITON_INTERPRET is 1")

CASES = {
    "5 channels": ("5x0e+5x1o", "0e+1o", "0e+1o"),
    "mixed": ("20x0e+5x1o+3x2e", "0e+1o+2e", "0e+1o+1e"),
    "a block that is not read": ("4x0e+4x3o", "0e+1o", "0e+1o"),
}


def products(name):
    """The paths of a case; of a Clebsch-Gordan product, where several paths add up to one output, if it is no case."""
    if name == "shared outputs":
        return ClebschGordanProduct(3, lmax=1).paths
    irreps, harmonics, keep = CASES[name]
    return depthwise_paths(o3.Irreps(irreps), o3.Irreps(harmonics), [ir for _, ir in o3.Irreps(keep)])[0]


def edges_of(count):
    """Edges of five nodes, 20 of which lead to node 1 and none to or from node 3."""
    receiver = torch.tensor([0, 0, *[1] * 20, 2, 4, 4], device=DEVICE)[:count]
    sender = torch.tensor([1, 2, *[0, 2, 2, 4] * 5, 2, 0, 1], device=DEVICE)[:count]
    return EdgeTensors(sender, receiver, row_pointers(receiver, 5), *sorted_by(sender, 5))


def factors_of(paths, count, hidden, dtype=torch.float64):
    """x, harmonics, hidden layer, matrix and cotangent."""
    shapes = [(5, paths.x_dim), (count, paths.harmonics_dim), (count, hidden), (hidden, paths.weight_numel)]
    return [torch.randn(shape, device=DEVICE).to(dtype) for shape in (*shapes, (5, paths.out_dim))]


def graph_of(edges):
    class Graph:
        sender, receiver, row_pointers = edges.sender, edges.receiver, edges.row_pointers
        num_nodes, by_sender = 5, (edges.order, edges.pointers)

    return Graph()


def expected(factors, edges, paths):
    """The value and all derivatives, in float64, with weights that are made before."""
    *inputs, g = (factor.double().requires_grad_() for factor in factors)

    with kernels.use("reference"):
        out = kernels.tensor_product_conv(*inputs[:2], inputs[2] @ inputs[3], graph_of(edges), paths)
    return out.detach(), *torch.autograd.grad((out * g).sum(), inputs)


@pytest.fixture(autouse=True)
def nothing_is_left_out():
    """Deterministic algorithms: torch fills new tensors with NaN, which stays where a kernel does not write.

    On a GPU, where they want more settings for matrix products, sizes are timed instead.
    """
    torch.use_deterministic_algorithms(DEVICE == "cpu")
    yield
    torch.use_deterministic_algorithms(False)


def found(factors, edges, paths, wanted=(True,) * 4):
    *inputs, g = factors
    return Triton().radial_conv(inputs, edges, paths), *Triton().radial_gradients(inputs, g, edges, paths, wanted)


@runs
@pytest.mark.parametrize(
    ("name", "count", "hidden"),
    [
        ("5 channels", 25, 8),
        ("mixed", 25, 20),
        ("a block that is not read", 25, 64),
        ("shared outputs", 25, 80),
        ("mixed", 0, 8),
    ],
)
def test_weights_made_in_the_kernel(name, count, hidden):
    paths, edges = products(name), edges_of(count)
    assert Triton().takes(paths)
    factors = factors_of(paths, count, hidden)
    for value, right in zip(found(factors, edges, paths), expected(factors, edges, paths), strict=True):
        assert value.shape == right.shape
        assert (value - right).abs().max() <= 1e-12 * (1 + right.abs().max()) if right.numel() else True


def derivatives(backend, function, factors):
    """The value, the first derivatives, and those of a sum of all of the first."""
    with kernels.use(backend):
        out = function(*factors)
        first = torch.autograd.grad((out * out.detach().cos()).sum(), factors, create_graph=True)
        weighed = sum((part * part.detach().sin()).sum() for part in first)
        return out, *first, *torch.autograd.grad(weighed, factors)


@runs
def test_operators_have_derivatives_of_two_orders():
    paths, edges = products("5 channels"), edges_of(25)
    graph, factors = graph_of(edges), [factor.requires_grad_() for factor in factors_of(paths, 25, 8)[:4]]
    values, scores = (torch.randn(25, width, dtype=torch.float64, device=DEVICE) for width in (18, 2))

    def radial(*given):
        return kernels.radial_tensor_product_conv(*given, graph, paths)

    def attention(values, scores):
        return kernels.weighted_sum(values, kernels.segment_softmax(scores, graph), graph, blocks=[(1, 6), (3, 4)])

    for function, given in ((radial, factors), (attention, [values.requires_grad_(), scores.requires_grad_()])):
        results = (derivatives(backend, function, given) for backend in ("triton", "reference"))
        for value, right in zip(*results, strict=True):
            assert (value - right).abs().max() <= 1e-12 * (1 + right.abs().max())


@pytest.fixture
def products_of_bfloat16(monkeypatch):
    """Triton's interpreter multiplies matrices of bfloat16 as if their bits were whole numbers."""
    if not interpreted():
        return
    interpreter = importlib.import_module("triton.runtime.interpreter")
    handle, tl, product = interpreter.TensorHandle, interpreter.tl, interpreter.InterpreterBuilder.create_dot

    def widened(value):
        if value.dtype.scalar != tl.bfloat16:
            return value
        return handle((value.data.astype("uint32") << 16).view("float32"), tl.float32)

    def create_dot(self, a, b, *rest):
        return product(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@runs
@pytest.mark.usefixtures("products_of_bfloat16")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_weights_of_short_numbers(dtype):
    """Sums are in float32; cotangents of weights are rounded before they are multiplied by another matrix."""
    paths, edges = products("5 channels"), edges_of(25)
    factors = factors_of(paths, 25, 16, dtype)
    for value, right in zip(found(factors, edges, paths), expected(factors, edges, paths), strict=True):
        assert value.dtype == dtype
        assert (value - right).abs().max() <= (torch.finfo(dtype).eps + 4e-6) * right.abs().max()


@runs
def test_every_size_of_a_program_has_the_same_numbers():
    paths = depthwise_paths(o3.Irreps("40x0e+40x1o"), o3.Irreps("0e+1o"), [o3.Irrep("1o")])[0]
    edges = edges_of(25)
    x, harmonics, hidden, matrix, g = factors = factors_of(paths, 25, 40)
    right = expected(factors, edges, paths)
    narrow, wide = radial_kernels(radial_receiver_kernel, paths, x.dtype, 40)
    for kernel in (narrow, wide):
        out = torch.full_like(g, torch.nan)
        launch(kernel, 5, (x, harmonics, hidden, matrix, edges.sender, edges.row_pointers, out))
        assert (out - right[0]).abs().max() <= 1e-11
    few, many = radial_kernels(radial_harmonics_kernel, paths, x.dtype, 40)
    for kernel in (few, many):
        out = torch.full_like(harmonics, torch.nan)
        launch(kernel, 25, (x, harmonics, hidden, matrix, g, edges.sender, edges.receiver, out, 25))
        assert (out - right[2]).abs().max() <= 1e-11


@runs
def test_only_what_is_wanted_of_the_radial_form():
    paths, edges = products("5 channels"), edges_of(25)
    factors = factors_of(paths, 25, 8)
    every = found(factors, edges, paths)[1:]
    for n in range(4):
        wanted = tuple(m == n for m in range(4))
        for m, value in enumerate(Triton().radial_gradients(factors[:4], factors[4], edges, paths, wanted)):
            assert torch.equal(value, every[m]) if m == n else value.shape == (0,)


@runs
def test_the_sum_by_the_matrix_in_several_shares(monkeypatch):
    monkeypatch.setattr("geoeq.kernels.triton.radial._EDGES", 8)
    paths, edges = products("mixed"), edges_of(25)
    factors = factors_of(paths, 25, 16)
    value = Triton().radial_gradients(factors[:4], factors[4], edges, paths, (False, False, False, True))[3]
    assert (value - expected(factors, edges, paths)[4]).abs().max() <= 1e-11


@runs
def test_graphs_without_nodes():
    paths = products("5 channels")
    none = torch.zeros(0, dtype=torch.long, device=DEVICE)
    edges = EdgeTensors(none, none, none.new_zeros(1), none, none.new_zeros(1))
    x, harmonics, hidden, matrix, g = factors_of(paths, 0, 8)
    values = found((x[:0], harmonics, hidden, matrix, g[:0]), edges, paths)
    assert [value.shape[0] for value in values] == [0, 0, 0, 0, 8]
    assert not values[4].any()


SUMS = {
    "a position": (((3, 1),), 1),
    "blocks of different widths": (((1, 20), (3, 10), (2, 10)), 5),
    "many channels": (((1, 192), (3, 192)), 4),
    "one head": (((1, 7), (5, 3)), 1),
}


def heads_of(blocks, heads):
    """The head of each column."""
    return torch.cat([(torch.arange(channels) // (channels // heads)).repeat(rows) for rows, channels in blocks]).to(
        DEVICE
    )


@runs
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "count"), [*((name, 25) for name in SUMS), ("one head", 0)])
def test_weighted_sums(name, count, dtype):
    (blocks, heads), edges = SUMS[name], edges_of(count)
    head = heads_of(blocks, heads)
    values, weights, g = (
        torch.randn(n, d, device=DEVICE).to(dtype) for n, d in zip((count, count, 5), (len(head), heads, len(head)))
    )
    ends = edges.receiver, edges.row_pointers, blocks
    exact = [tensor.double().requires_grad_() for tensor in (values, weights)]
    right = torch.zeros(5, len(head), dtype=torch.float64, device=DEVICE)
    right = right.index_add(0, edges.receiver, exact[1][:, head] * exact[0])
    rights = [right.detach(), *torch.autograd.grad((right * g.double()).sum(), exact)]
    found = [Triton().weighted_sum(values, weights, *ends)]
    found += Triton().weighted_sum_gradients(values, weights, g, edges.receiver, blocks, (True, True))
    precision = max(torch.finfo(dtype).eps, 1e-14)
    for value, right in zip(found, rights, strict=True):
        assert value.dtype == dtype
        assert value.shape == right.shape
        assert (value - right).abs().max() <= 2 * precision * right.abs().max() if right.numel() else True
    for n in range(2):
        one = Triton().weighted_sum_gradients(values, weights, g, edges.receiver, blocks, (n == 0, n == 1))
        assert torch.equal(one[n], found[1 + n])
        assert one[1 - n].shape == (0,)


@runs
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("heads", "count"), [(1, 25), (5, 25), (8, 25), (300, 25), (3, 0)])
def test_softmax_over_edges(heads, count, dtype):
    """Scores of some hundreds overflow where the largest is not taken off."""
    edges = edges_of(count)
    scores, cotangent = ((300 * torch.randn(count, heads, device=DEVICE)).to(dtype) for _ in range(2))
    exact = scores.double().requires_grad_()
    rows = [torch.softmax(exact[edges.receiver == node], dim=0) for node in range(5)]
    right = torch.cat(rows)
    found = Triton().segment_softmax(scores, edges.receiver, edges.row_pointers)
    by_scores = Triton().segment_softmax_gradient(found, cotangent, edges.receiver, edges.row_pointers)
    assert found.dtype == by_scores.dtype == dtype
    if count:
        precision = max(torch.finfo(dtype).eps, 1e-14)
        assert (found - right).abs().max() <= 4 * precision
        (right,) = torch.autograd.grad((right * cotangent.double()).sum(), exact)
        assert (by_scores - right).abs().max() <= 8 * precision * cotangent.abs().max()


@installed
@pytest.mark.skipif(DEVICE == "cuda" or interpreted(), reason="the kernels are run in this process")
def test_the_forms_give_the_right_numbers_in_the_interpreter():
    """Triton decides when it is imported whether it interprets, so this takes a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    result = subprocess.run(
        command,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
    assert "TRITON_INTERPRET is not 1" not in result.stdout


MACE = depthwise_paths(
    o3.Irreps("128x0e+128x1o"), o3.Irreps("0e+1o+2e+3o"), [o3.Irrep(ir) for ir in ("0e", "1o", "2e")]
)[0]
GPUS = [(torch.float32, 90), (torch.float32, 80), (torch.bfloat16, 90), (torch.bfloat16, 80), (torch.float64, 90)]
RADIAL = (radial_receiver_kernel, radial_sender_kernel, radial_harmonics_kernel, hidden_kernel, matrix_kernel)


@installed
@compiles
@pytest.mark.parametrize(("dtype", "capability"), GPUS, ids=str)
@pytest.mark.parametrize("make", RADIAL, ids=lambda make: make.__name__)
def test_radial_kernels_compile_and_nothing_spills(make, dtype, capability):
    taken = usage(radial_kernels(make, MACE, dtype, 64)[0], dtype, capability)
    assert taken.spilled <= (128 if dtype == torch.float64 else 0)
    assert taken.shared <= 48 * 1024
    assert "mma" in taken.assembly
    assert not re.search(r"cvt\S*\.(f64\.f32|f32\.f64)", taken.assembly)  # float64 throughout


@installed
@compiles
@pytest.mark.parametrize(("dtype", "capability"), GPUS, ids=str)
@pytest.mark.parametrize(("blocks", "heads"), [(((1, 128), (3, 128), (5, 64)), 8), (((3, 1),), 1)])
def test_sums_and_softmax_compile_and_nothing_spills(blocks, heads, dtype, capability):
    for kernel in (*sums(blocks, heads, dtype), *softmaxes(heads, dtype)):
        taken = usage(kernel, dtype, capability)
        assert taken.spilled == 0
        assert taken.registers <= 96
        assert not re.search(r"cvt\S*\.(f64\.f32|f32\.f64)", taken.assembly)  # float64 throughout


@installed
@compiles
@pytest.mark.parametrize("make", [radial_receiver_kernel, hidden_kernel], ids=lambda make: make.__name__)
def test_wide_hidden_layers_and_narrow_blocks_compile(make):
    """Shared memory, which holds parts of the matrix, does not grow with the width."""
    taken = usage(radial_kernels(make, products("mixed"), torch.float32, 256)[0], torch.float32, 90)
    assert taken.shared <= 48 * 1024
