"""Triton's kernels have the numbers of the reference, in its interpreter or on a GPU; elsewhere they compile."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from e3nn import o3

from geoeq import kernels
from geoeq.errors import BackendError
from geoeq.kernels.segments import EdgeTensors
from geoeq.kernels.triton import tiles
from geoeq.kernels.triton.backend import Triton, kernels_for
from geoeq.kernels.triton.compiler import interpreted, launch, unavailable, usage
from geoeq.kernels.triton.edge_kernel import edge_kernel
from geoeq.kernels.triton.kernel import Tile
from geoeq.kernels.triton.node_kernels import receiver_kernel, sender_kernel
from geoeq.layers.products import ClebschGordanProduct
from geoeq.layers.products.tensor_paths import depthwise_paths, fully_connected_paths
from geoeq.pointers import row_pointers, sorted_by

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

installed = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
runs = pytest.mark.skipif(unavailable() is not None, reason=f"{unavailable()}; TRITON_INTERPRET is not 1")
compiles = pytest.mark.skipif(interpreted(), reason="nothing is compiled where TRITON_INTERPRET is 1")

CASES = {
    "scalars": ("3x0e", "0e", "0e"),
    "5 channels": ("5x0e+5x1o", "0e+1o", "0e+1o"),
    "17 channels": ("17x0e+17x1o", "0e+1o+2e", "0e+1o+2e"),
    "mixed": ("8x0e+5x1o+3x2e", "0e+1o+2e", "0e+1o+1e+2e"),
    "a block that is not read": ("4x0e+4x3o", "0e+1o", "0e+1o"),
    "many outputs": ("2x1o+2x2e", "0e+1o+2e", "0e+1e+1o+2e+2o+3e+3o+4e"),
}


def products(name):
    """The paths of a case; of a Clebsch-Gordan product, where several paths add up to one output, if it is no case."""
    if name == "shared outputs":
        return ClebschGordanProduct(3, lmax=2).paths
    irreps, harmonics, keep = CASES[name]
    return depthwise_paths(o3.Irreps(irreps), o3.Irreps(harmonics), [ir for _, ir in o3.Irreps(keep)])[0]


class Edges:
    """Five nodes and eight edges (or none); nothing leads to or from node 3."""

    num_nodes = 5

    def __init__(self, count=8):
        self.receiver = torch.tensor([0, 0, 0, 1, 1, 2, 4, 4], device=DEVICE)[:count]
        self.sender = torch.tensor([1, 2, 4, 0, 2, 2, 0, 1], device=DEVICE)[:count]
        self.row_pointers = row_pointers(self.receiver, self.num_nodes)
        self.by_sender = sorted_by(self.sender, self.num_nodes)


def factors_of(paths, count, weighted, dtype=torch.float64):
    shapes = [(5, paths.x_dim), (count, paths.harmonics_dim), *[(count, paths.weight_numel)] * weighted]
    return [torch.randn(shape, dtype=dtype, device=DEVICE, requires_grad=True) for shape in shapes]


def derivatives(backend, paths, edges, factors):
    """The value, the first derivatives, and those of a sum of all of the first."""
    with kernels.use(backend):
        out = kernels.tensor_product_conv(*factors, edges, paths)
        first = torch.autograd.grad((out * out.detach().cos()).sum(), factors, create_graph=True)
        weighed = sum((part * part.detach().sin()).sum() for part in first)
        return out, *first, *torch.autograd.grad(weighed, factors)


@runs
@pytest.mark.parametrize(("name", "count"), [*((name, 8) for name in (*CASES, "shared outputs")), ("mixed", 0)])
def test_values_and_derivatives_are_those_of_the_reference(name, count):
    paths, edges = products(name), Edges(count)
    assert Triton().takes(paths)
    factors = factors_of(paths, count, weighted=True)
    found = derivatives("triton", paths, edges, factors)
    for value, right in zip(found, derivatives("reference", paths, edges, factors), strict=True):
        assert value.shape == right.shape
        assert (value - right).abs().max() <= 1e-12 * (1 + right.abs().max()) if right.numel() else True


@runs
def test_products_without_weights():
    paths, edges = products("mixed"), Edges()
    x, harmonics = factors_of(paths, 8, weighted=False)
    found = []
    for backend in ("triton", "reference"):
        with kernels.use(backend):
            blocks = kernels.tensor_product(x[edges.sender], harmonics, None, paths)
            total = sum((block * block.detach().cos()).sum() for block in blocks)
            found.append([*blocks, *torch.autograd.grad(total, [x, harmonics])])
    for value, right in zip(*found, strict=True):
        assert (value - right).abs().max() <= 1e-12


@runs
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_short_numbers_are_rounded_once(dtype):
    """Sums are in float32: the result is as exact as its dtype."""
    paths, edges = products("5 channels"), Edges()
    x, harmonics, weights = (factor.detach() for factor in factors_of(paths, 8, weighted=True, dtype=dtype))
    g = torch.randn(5, paths.out_dim, dtype=dtype, device=DEVICE)
    tensors = EdgeTensors(edges.sender, edges.receiver, edges.row_pointers, *edges.by_sender)
    found = contracted(x, harmonics, weights, g, tensors, paths)
    exact = contracted(x.double(), harmonics.double(), weights.double(), g.double(), tensors, paths)
    for value, right in zip(found, exact, strict=True):
        assert value.dtype == dtype
        assert (value - right).abs().max() <= (torch.finfo(dtype).eps + 1e-6) * right.abs().max()


def contracted(x, harmonics, weights, g, edges, paths):
    return (
        Triton().conv(x, harmonics, weights, edges, paths),
        Triton().grad_x(g, harmonics, weights, edges, paths),
        *Triton().grad_edges((x, harmonics, weights, g), edges, paths, (True, True)),
    )


@runs
def test_only_what_is_asked_for_is_found():
    paths, edges = products("mixed"), Edges()
    x, harmonics, weights = (factor.detach() for factor in factors_of(paths, 8, weighted=True))
    g = torch.randn(5, paths.out_dim, dtype=x.dtype, device=DEVICE)
    tensors = EdgeTensors(edges.sender, edges.receiver, edges.row_pointers, *edges.by_sender)
    factors = x, harmonics, weights, g
    both = Triton().grad_edges(factors, tensors, paths, (True, True))
    one = Triton().grad_edges(factors, tensors, paths, (True, False))
    other = Triton().grad_edges(factors, tensors, paths, (False, True))
    assert one[1].numel() == other[0].numel() == 0
    torch.testing.assert_close((one[0], other[1]), both)


@runs
@pytest.mark.parametrize("make", [receiver_kernel, edge_kernel], ids=lambda make: make.__name__)
def test_the_size_of_a_program_does_not_change_the_result(make):
    """Channels in several pieces, several edges of a program, fewer programs than would be whole."""
    paths, edges = (
        depthwise_paths(o3.Irreps("40x0e+40x1o"), o3.Irreps("0e+1o"), [o3.Irrep("0e"), o3.Irrep("1o")])[0],
        Edges(),
    )
    x, harmonics, weights = (factor.detach() for factor in factors_of(paths, 8, weighted=True))
    g = torch.randn(5, paths.out_dim, dtype=x.dtype, device=DEVICE)
    found = []
    for tile in (Tile(64, 1), Tile(16, 1, 3)):
        if make is receiver_kernel:
            results = [torch.full_like(g, torch.nan)]
            arguments = (x, harmonics, weights, edges.sender, edges.row_pointers, *results)
            launch(make(paths, "float64", tile, True), 5, arguments)
        else:
            results = [torch.full_like(harmonics, torch.nan), torch.full_like(weights, torch.nan)]
            arguments = (x, harmonics, weights, g, edges.sender, edges.receiver, *results, 8)
            launch(make(paths, "float64", tile, True, True, True), 8, arguments)
        found.append(results)
    for value, other in zip(*found, strict=True):
        assert (value - other).abs().max() <= 1e-12


@pytest.mark.slow
@installed
@pytest.mark.skipif(DEVICE == "cuda" or interpreted(), reason="the kernels are run in this process")
def test_the_kernels_give_the_right_numbers_in_the_interpreter():
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


@installed
@compiles
@pytest.mark.parametrize("capability", [90, 80])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (receiver_kernel, (True,)),
        (receiver_kernel, (False,)),
        (sender_kernel, (True,)),
        (edge_kernel, (True, True, True)),
        (edge_kernel, (True, True, False)),
        (edge_kernel, (True, False, True)),
        (edge_kernel, (False, True, False)),
    ],
)
def test_kernels_compile_and_nothing_spills(make, options, capability):
    sizes = kernels_for(make, MACE, torch.float32, *options)
    for kernel in {sizes[0], sizes[-1]}:
        taken = usage(kernel, torch.float32, capability)
        assert taken.spilled == 0
        assert 16 < taken.registers <= 128
        assert f".target sm_{capability}" in taken.assembly


@installed
@compiles
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_kernels_of_other_dtypes_compile(dtype):
    for make, options in ((receiver_kernel, (True,)), (sender_kernel, (True,)), (edge_kernel, (True, True, True))):
        kernel = kernels_for(make, MACE, dtype, *options)[0]
        assert usage(kernel, dtype, 90).spilled == 0


@installed
@compiles
@pytest.mark.parametrize("name", ["mixed", "many outputs", "shared outputs"])
def test_masks_and_several_programs_of_a_row_compile(name):
    for make, options in ((receiver_kernel, (True,)), (sender_kernel, (True,)), (edge_kernel, (True, True, True))):
        kernel = kernels_for(make, products(name), torch.float32, *options)[0]
        assert usage(kernel, torch.float32, 90).spilled == 0


@installed
@compiles
def test_coefficients_of_double_kernels_are_exact():
    """One over the square root of 3, which no float32 holds, is in the assembly with all of its digits."""
    kernel = kernels_for(receiver_kernel, MACE, torch.float64, True)[0]
    assembly = usage(kernel, torch.float64, 90).assembly
    assert "0d3FE279A7459033" in assembly
    assert ".f32" not in assembly


def test_many_outputs_are_shared_by_several_programs():
    paths = products("many outputs")
    assert kernels_for(receiver_kernel, paths, torch.float32, True)[0].tasks == 2
    assert kernels_for(receiver_kernel, paths, torch.float64, True)[0].tasks == 3


def test_what_it_takes():
    irreps, harmonics = o3.Irreps("4x0e+4x1o"), o3.Irreps("0e+1o")
    assert Triton().takes(products("mixed"))
    assert Triton().takes(products("shared outputs"))
    assert not Triton().takes(fully_connected_paths(irreps, harmonics, irreps))
    assert not Triton().supports(torch.ones(1))


def test_outputs_that_are_partly_shared_are_left_to_the_reference():
    path = {"degrees": (0, 0, 0), "out_block": 0, "mode": "uvu", "coefficient": 1.0}
    wide = kernels.Path(**path, x_block=0, x_channels=4, out_channel=0, out_channels=4, weight_start=0)
    narrow = kernels.Path(**path, x_block=1, x_channels=2, out_channel=2, out_channels=2, weight_start=4)
    blocks = ((1, 4), (1, 2))
    assert not Triton().takes(kernels.Paths((wide, narrow), blocks, blocks[:1]))
    assert not Triton().takes(kernels.Paths((wide,), blocks, ((1, 6),)))


@installed
@pytest.mark.skipif(unavailable() is None, reason="it is available")
def test_it_says_why_it_cannot_be_used():
    with (
        pytest.raises(BackendError, match="'triton' cannot be used here: there is no NVIDIA GPU"),
        kernels.use("triton"),
    ):
        pass


@compiles
def test_tensors_must_be_on_a_gpu():
    kernel = kernels_for(receiver_kernel, products("scalars"), torch.float32, False)[0]
    with pytest.raises(BackendError, match="these are on cpu"):
        launch(kernel, 1, (torch.ones(1),) * 6)


def test_the_fastest_size_is_found_once(monkeypatch):
    sizes, arguments = kernels_for(sender_kernel, MACE, torch.float32, True), (torch.ones(1),)
    times, launched = {kernel: float(n) for n, kernel in enumerate(reversed(sizes))}, []
    monkeypatch.setattr(tiles, "_fastest", {})
    monkeypatch.setattr(tiles, "interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(tiles, "launch", lambda kernel, count, arguments: launched.append(kernel))
    monkeypatch.setattr(tiles, "time_of", lambda kernel, count, arguments: times.pop(kernel))
    for count in (0, 1000, 1001):
        tiles.launch_fastest(sizes, count, arguments)
    assert launched == [sizes[0], sizes[-1], sizes[-1]]
    assert not times
    with deterministic_algorithms():
        tiles.launch_fastest(sizes, 64_000, arguments)
    assert launched[-1] == sizes[0]


@contextlib.contextmanager
def deterministic_algorithms():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
