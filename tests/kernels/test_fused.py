"""Fused convolutions against the reference: values, derivatives, operators, threads and what is kept on disk."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from dataclasses import dataclass

import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from geoeq import kernels
from geoeq.errors import InputError, TensorError
from geoeq.kernels import backend as backends
from geoeq.kernels.backends.cuequivariance import CuEquivariance
from geoeq.kernels.backends.fused import FusedBackend
from geoeq.kernels.llvm import compiler, launch, radial
from geoeq.kernels.llvm import threads as kernel_threads
from geoeq.kernels.llvm.backend import LLVM
from geoeq.kernels.llvm.product_kernels import edge_kernel, receiver_kernel, sender_kernel
from geoeq.kernels.paths import described_paths
from geoeq.layers import TensorProductConv
from geoeq.layers.products import ClebschGordanProduct
from geoeq.layers.products.tensor_paths import depthwise_paths
from geoeq.pointers import row_pointers, sorted_by

pytestmark = pytest.mark.skipif(LLVM().available() is not None, reason=str(LLVM().available()))

MACE = ("5x0e + 5x1o", "0e + 1o + 2e + 3o", "0e + 1o + 2e")


@dataclass
class EdgesOnly:
    """What a convolution reads of a graph, as ``torch.compile`` can build it."""

    sender: torch.Tensor
    receiver: torch.Tensor
    row_pointers: torch.Tensor
    num_nodes: int
    harmonics: torch.Tensor | None = None

    @property
    def by_sender(self):
        return sorted_by(self.sender, self.num_nodes)


def paths_of(irreps_in, harmonics, out):
    return depthwise_paths(o3.Irreps(irreps_in), o3.Irreps(harmonics), [ir for _, ir in o3.Irreps(out)])[0]


def graph_of(num_nodes, num_edges, seed=0):
    """Edges at random, the last node without any."""
    generator = torch.Generator().manual_seed(seed)
    high = max(num_nodes - 1, 1)
    receiver = torch.randint(high, (num_edges,), generator=generator).sort()[0]
    sender = torch.randint(high, (num_edges,), generator=generator)
    return EdgesOnly(sender, receiver, row_pointers(receiver, num_nodes), num_nodes)


def factors_of(paths, graph, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    num_edges = len(graph.sender)
    shapes = [(graph.num_nodes, paths.x_dim), (num_edges, paths.harmonics_dim + 2), (num_edges, paths.weight_numel)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def random(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def hidden_of(paths, graph, width=3):
    return random(len(graph.sender), width), random(width, paths.weight_numel)


def derivatives(name, paths, graph, factors, function=kernels.tensor_product_conv):
    """The value, its gradients by all factors, and the gradients of a function of those."""
    return derivatives_of(name, lambda *factors: function(*factors, graph, paths), factors)


@pytest.fixture(autouse=True)
def small_sums_too(monkeypatch):
    """Plain PyTorch, which is as fast for these, would compute them otherwise."""
    backend = backends.registered("llvm", FusedBackend)
    monkeypatch.setattr(backend, "smallest_sum", 0)
    monkeypatch.setattr(backend, "smallest_softmax", 0)


def derivatives_of(name, function, factors):
    with kernels.use(name):
        value = function(*factors)
        cotangent = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value).requires_grad_()
        first = torch.autograd.grad(value, factors, cotangent, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), [*factors, cotangent])
    return [value, *first, *second]


def assert_same(found, expected, tolerance=1e-12):
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=tolerance)


@st.composite
def products(draw):
    irrep = st.tuples(st.integers(0, 3), st.sampled_from([-1, 1]))
    blocks = draw(st.lists(st.tuples(st.sampled_from([1, 3, 7, 8, 17]), irrep), min_size=1, max_size=3))
    irreps_in = o3.Irreps([(channels, ir) for channels, ir in blocks])
    degrees = draw(st.sets(st.integers(0, 3), min_size=1))
    harmonics = o3.Irreps([(1, (degree, (-1) ** degree)) for degree in sorted(degrees)])
    reached = sorted({out for _, ir in irreps_in for _, harmonic in harmonics for out in ir * harmonic})
    keep = draw(st.sets(st.sampled_from(reached), min_size=1, max_size=3))
    return depthwise_paths(irreps_in, harmonics, sorted(keep))[0]


@settings(max_examples=25, deadline=None)
@given(products(), st.integers(0, 12))
def test_value_and_derivatives_of_two_orders_are_those_of_the_reference(paths, num_edges):
    graph = graph_of(5, num_edges)
    factors = factors_of(paths, graph)
    assert_same(*(derivatives(name, paths, graph, factors) for name in ("llvm", "reference")))


@settings(max_examples=15, deadline=None)
@given(products(), st.integers(0, 12), st.sampled_from([64, 1]))
def test_weights_made_inside_are_those_of_the_reference(paths, num_edges, at_once):
    """Also where the edges of several receivers are taken at a time, and where those of each are."""
    graph = graph_of(5, num_edges)
    x, harmonics, _ = factors_of(paths, graph)
    factors = [x, harmonics, *hidden_of(paths, graph)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radial, "_edges_at_once", lambda matrix: at_once)
        found = derivatives("llvm", paths, graph, factors, kernels.radial_tensor_product_conv)
    assert_same(found, derivatives("reference", paths, graph, factors, kernels.radial_tensor_product_conv))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(0, 12),
)
def test_weighted_sums_and_softmax_are_those_of_the_reference(blocks, heads, num_edges):
    blocks = [(rows, heads * channels) for rows, channels in blocks]
    graph, width = graph_of(5, num_edges), sum(rows * channels for rows, channels in blocks)
    factors = [random(num_edges, width), random(num_edges, heads)]

    def attention(values, scores):
        return kernels.weighted_sum(values, kernels.segment_softmax(scores, graph), graph, blocks=blocks)

    def plain(values, scores):
        return kernels.weighted_sum(
            values, kernels.segment_softmax(scores, graph.receiver, 5), graph.receiver, 5, blocks
        )

    expected = derivatives_of("reference", attention, factors)
    assert_same(derivatives_of("llvm", attention, factors), expected)
    assert_same(derivatives_of("llvm", plain, factors), expected)  # an index, of which nothing is known


def test_what_does_not_fit_a_weighted_sum():
    graph = graph_of(4, 6)
    with pytest.raises(TensorError, match=r"they must be \[E, D\] and \[E, H\]"):
        kernels.weighted_sum(random(6, 4), random(5, 2), graph)
    with pytest.raises(TensorError, match=r"4 columns do not consist of the blocks \[\(1, 3\)\]"):
        kernels.weighted_sum(random(6, 4), random(6, 1), graph, blocks=[(1, 3)])
    with pytest.raises(TensorError, match="with 3 heads"):
        kernels.weighted_sum(random(6, 4), random(6, 3), graph)
    paths = paths_of("2x0e", "0e", "0e")
    with pytest.raises(TensorError, match=r"needs \[6, H\] and \[H, 2\]"):
        kernels.radial_tensor_product_conv(random(4, 2), random(6, 1), random(6, 3), random(4, 2), graph, paths)


def test_scores_of_any_shape_and_without_overflow():
    graph = graph_of(4, 6)
    for shape in ((6,), (6, 2, 3)):
        scores = 1e4 * torch.randn(shape, dtype=torch.float64)
        with kernels.use("reference"):
            expected = kernels.segment_softmax(scores, graph)
        found = kernels.segment_softmax(scores, graph)
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected)


@pytest.mark.skipif(CuEquivariance().available() is not None, reason="cuequivariance is not installed")
@pytest.mark.parametrize("name", ["MACE", "several channels", "shared outputs"])
def test_cuequivariance_has_the_numbers_of_the_reference(name):
    """By its plain method, on the CPU."""
    paths = {
        "MACE": lambda: paths_of(*MACE),
        "several channels": lambda: paths_of("5x0e + 3x1o", "0e + 1o", "0e + 1o"),
        "shared outputs": lambda: ClebschGordanProduct(3, lmax=2).paths,
    }[name]()
    graph = graph_of(5, 12)
    factors = factors_of(paths, graph)
    assert_same(*(derivatives(backend, paths, graph, factors) for backend in ("cuequivariance", "reference")))


def test_small_sums_are_left_to_pytorch(monkeypatch):
    monkeypatch.undo()
    called = []
    original = LLVM.weighted_sum
    monkeypatch.setattr(LLVM, "weighted_sum", lambda *given: called.append(1) or original(*given))
    graph = graph_of(50, 600)
    for width in (2, 200):
        kernels.weighted_sum(random(600, width), random(600, 1), graph)
    assert len(called) == 1


@pytest.mark.parametrize("num_nodes", [1, 400])
def test_many_edges_shared_among_threads(num_nodes):
    paths = paths_of("32x0e + 16x1o", "0e + 1o + 2e", "0e + 1o + 2e")
    graph = graph_of(num_nodes, 3000)
    factors = factors_of(paths, graph)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(derivatives("llvm", paths, graph, factors))
    finally:
        torch.set_num_threads(before)
    assert_same(found[0], derivatives("reference", paths, graph, factors))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0][:4], others[:4], strict=True))


def test_float32_to_its_precision():
    paths, graph = paths_of(*MACE), graph_of(6, 30)
    factors = factors_of(paths, graph, torch.float32)
    double = [factor.detach().double().requires_grad_() for factor in factors]
    expected = [value.float() for value in derivatives("reference", paths, graph, double)]
    assert_same(derivatives("llvm", paths, graph, factors), expected, 1e-5)


@pytest.mark.parametrize("weighted", [True, False])
def test_products_of_rows_and_their_linear_maps(weighted):
    """Their output is divided into blocks, each of all rows."""
    paths = paths_of("5x0e + 3x1o", "0e + 1o + 2e", "0e + 1o + 2e")
    shapes = [(7, paths.x_dim), (7, paths.harmonics_dim), *[(7, paths.weight_numel)] * weighted]
    factors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    maps = [torch.randn(channels, 4, dtype=torch.float64, requires_grad=True) for _, channels in paths.out_blocks]
    found = []
    for name in ("llvm", "reference"):
        with kernels.use(name):
            arguments = (*factors, *[None] * (not weighted), paths)
            blocks = (*kernels.tensor_product(*arguments), *kernels.tensor_product_linear(*arguments, maps))
            total = sum((block * block.detach().cos()).sum() for block in blocks)
            first = torch.autograd.grad(total, [*factors, *maps], create_graph=True)
            found.append([*blocks, *first, *torch.autograd.grad(sum(part.square().sum() for part in first), factors)])
    assert_same(*found)


def test_only_what_needs_a_derivative_gets_one():
    paths, graph = paths_of(*MACE), graph_of(4, 9)
    factors = factors_of(paths, graph)
    for n, factor in enumerate(factors):
        alone = [f if m == n else f.detach() for m, f in enumerate(factors)]
        found = []
        for name in ("llvm", "reference"):
            with kernels.use(name):
                value = kernels.tensor_product_conv(*alone, graph, paths)
                found.append(torch.autograd.grad(value.sin().sum(), factor))
        assert_same(*found)


def operators():
    """Every operator with arguments: its factors, which follow one another, and the rest."""
    paths, graph = paths_of("2x0e + 3x1o", "0e + 1o", "0e + 1o"), graph_of(4, 6)
    x, harmonics, weights = factors_of(paths, graph)
    harmonics = harmonics[:, : paths.harmonics_dim].detach().contiguous().requires_grad_()
    hidden, matrix = hidden_of(paths, graph)
    edges = (graph.sender, graph.receiver, graph.row_pointers, *graph.by_sender, paths.description, "llvm")
    values, scores, blocks = random(6, 20), random(6, 2), [1, 2, 3, 6]
    rows = graph.receiver, graph.row_pointers
    return {
        "tensor_product_conv": ((x, harmonics, weights), random(4, paths.out_dim), edges),
        "radial_tensor_product_conv": ((x, harmonics, hidden, matrix), random(4, paths.out_dim), edges),
        "weighted_sum": ((values, scores), random(4, 20), (*rows, blocks, "llvm")),
        "segment_softmax": ((scores,), None, (*rows, "llvm")),
        "segment_softmax_gradient": ((scores, random(6, 2)), None, (*rows, "llvm")),
    }


OPERATORS = ["tensor_product_conv", "radial_tensor_product_conv", "weighted_sum"]


@pytest.mark.parametrize("name", [*OPERATORS, "segment_softmax", "segment_softmax_gradient"])
def test_operators_keep_the_rules_of_torch(name):
    factors, cotangent, rest = operators()[name]
    torch.library.opcheck(getattr(torch.ops.geoeq, name), (*factors, *rest))
    if cotangent is not None:
        derivative = getattr(torch.ops.geoeq, f"{name}_gradients")
        torch.library.opcheck(derivative, (*factors, cotangent, *rest, [True] * len(factors)))
    if name == "radial_tensor_product_conv":
        second, others = torch.ops.geoeq.radial_tensor_product_conv_second, [random(*f.shape) for f in factors]
        torch.library.opcheck(second, (*factors, cotangent, *others, *rest, [True] * 5))


@pytest.mark.parametrize("name", [*OPERATORS, "segment_softmax"])
def test_derivatives_of_operators_by_differences(name):
    factors, _, rest = operators()[name]

    def run(*factors):
        return getattr(torch.ops.geoeq, name)(*factors, *rest)

    assert torch.autograd.gradcheck(run, factors)
    assert torch.autograd.gradgradcheck(run, factors)


def test_derivatives_of_third_order():
    """Hessians in a loss: of what is computed in one call, too."""
    (x, harmonics, hidden, matrix), _, rest = operators()["radial_tensor_product_conv"]

    def run(x, harmonics, hidden, matrix):
        value = torch.ops.geoeq.radial_tensor_product_conv(x, harmonics, hidden, matrix, *rest).square().sum()
        return torch.autograd.grad(value, (x, hidden), create_graph=True)

    assert torch.autograd.gradgradcheck(run, (x, harmonics, hidden, matrix))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = TensorProductConv("4x0e + 3x1o", "0e + 1o", "0e + 1o")

    def forward(self, x, harmonics, weights, sender, receiver):
        graph = EdgesOnly(sender, receiver, row_pointers(receiver, x.shape[0]), x.shape[0], harmonics)
        return self.conv(x, weights, graph).sin()


def network_arguments():
    network, graph = Network(), graph_of(5, 12)
    x, _, weights = factors_of(network.conv.paths, graph, torch.float32)
    return network, (x, torch.randn(12, 4), weights, graph.sender, graph.receiver)


def test_compile_and_export():
    network, arguments = network_arguments()
    with torch.no_grad():
        expected = network(*arguments)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments), expected)
        exported = torch.export.export(network, arguments)
        torch.testing.assert_close(exported.module()(*arguments), expected)
    assert any("tensor_product_conv" in str(node.target) for node in exported.graph.nodes)


def test_compiled_derivatives():
    network, arguments = network_arguments()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*arguments).sum(), arguments[0])
    assert_same(found, torch.autograd.grad(network(*arguments).sum(), arguments[0]), 1e-5)


def test_transforms_of_functions_take_the_reference():
    paths, graph = paths_of("2x0e + 1x1o", "0e + 1o", "0e + 1o"), graph_of(3, 4)
    factors = [factor.detach() for factor in factors_of(paths, graph)]

    def run(x):
        return kernels.tensor_product_conv(x, *factors[1:], graph, paths)

    jacobian = torch.func.jacrev(run)(factors[0])
    torch.testing.assert_close(jacobian, torch.autograd.functional.jacobian(run, factors[0]))


def test_offsets_beyond_32_bits():
    """Edges 2^30 to 2^30 + 9 of arrays that would take terabytes; the kernel is told where they would begin."""
    paths, graph, first = paths_of(*MACE), graph_of(4, 9), 2**30
    x, harmonics, weights = (factor.detach() for factor in factors_of(paths, graph))
    harmonics = harmonics[:, : paths.harmonics_dim].contiguous()
    assert first * paths.weight_numel > 2**31
    pointers, found = graph.row_pointers + first, torch.empty(4, paths.out_dim, dtype=torch.float64)
    kernel = launch.kernel_of(receiver_kernel, paths, True, False, dtype=torch.float64)
    starts = [tensor.data_ptr() - 8 * first * width for tensor, width in _rows(harmonics, weights, graph.sender)]
    launch.run(kernel, (x, *starts, pointers, found), 4, [0, 4])
    with kernels.use("reference"):
        assert_same([found], [kernels.tensor_product_conv(x, harmonics, weights, graph, paths)])


def _rows(*tensors):
    return [(tensor, tensor.stride(0)) for tensor in tensors]


def test_it_is_what_the_cpu_chooses():
    assert backends.choose(torch.zeros(1)).name == "llvm"
    assert backends.choose(torch.zeros(1, dtype=torch.float16)).name == "reference"


def test_a_missing_compiler_is_told_once(monkeypatch):
    monkeypatch.setattr(backends._BACKENDS["llvm"], "available", lambda: "no llvmlite here")
    backends._checked.cache_clear()
    try:
        with pytest.warns(UserWarning, match="'llvm' is not used, a slower one is: no llvmlite here"):
            assert backends.choose(torch.zeros(1)).name == "reference"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backends.choose(torch.zeros(1))
    finally:
        backends._checked.cache_clear()


def test_senders_that_are_no_nodes_are_refused():
    paths, graph = paths_of(*MACE), graph_of(4, 9)
    factors = factors_of(paths, graph)
    graph.sender = graph.sender + 2
    with kernels.use("llvm"), pytest.raises(TensorError, match="senders lie between"):
        kernels.tensor_product_conv(*factors, graph, paths)


def test_a_description_makes_the_same_paths():
    paths = paths_of(*MACE)
    again = described_paths(paths.description)
    assert again.paths == paths.paths
    assert (again.x_dim, again.out_dim, again.pieces) == (paths.x_dim, paths.out_dim, paths.pieces)
    assert described_paths(paths.description) is again


def run_once(result):
    paths, graph = paths_of(*MACE), graph_of(200, 3000)
    with kernels.use("llvm"):
        result.append(kernels.tensor_product_conv(*factors_of(paths, graph), graph, paths).detach())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are bound to cores on Linux")
def test_threads_are_not_bound_to_the_core_of_the_first(monkeypatch):
    """OpenMP binds the first thread with OMP_PROC_BIND, and what a thread starts is bound as it is."""
    cores = os.sched_getaffinity(0)
    if len(cores) == 1:
        pytest.skip("there is one core")
    monkeypatch.setattr(kernel_threads, "_pools", {})
    found = []

    def bound():
        os.sched_setaffinity(0, {min(cores)})
        found.append(kernel_threads._pool(1).submit(os.sched_getaffinity, 0).result())

    thread = threading.Thread(target=bound)
    thread.start()
    thread.join()
    assert found == [cores]


def test_two_threads_at_once():
    results = [[] for _ in range(6)]
    threads = [threading.Thread(target=run_once, args=(result,)) for result in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(result[0], results[0][0]) for result in results)


def in_child(queue, factors, graph, paths):
    torch.set_num_threads(1)  # torch's own threads do not survive a fork
    torch.get_num_threads = lambda: 2
    with kernels.use("llvm"):
        queue.put(float(kernels.tensor_product_conv(*factors, graph, paths).sum()))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork():
    """As in the workers of a DataLoader: the parent's threads do not exist there."""
    paths, graph = paths_of(*MACE), graph_of(200, 3000)
    factors = [factor.detach() for factor in factors_of(paths, graph)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with kernels.use("llvm"):
            expected = float(kernels.tensor_product_conv(*factors, graph, paths).sum())
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=in_child, args=(queue, factors, graph, paths), daemon=True)
        child.start()
        assert queue.get(timeout=60) == expected
        child.join()
    finally:
        torch.set_num_threads(before)


class Convolved(torch.utils.data.Dataset):
    """Each item is a convolution, as a data set that precomputes features might do."""

    def __init__(self, factors, graph, paths):
        self.given = factors, graph, paths

    def __len__(self):
        return 4

    def __getitem__(self, place):
        factors, graph, paths = self.given
        return place * kernels.tensor_product_conv(*factors, graph, paths).sum()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_the_workers_of_a_loader():
    paths, graph = paths_of(*MACE), graph_of(200, 3000)
    data = Convolved([factor.detach() for factor in factors_of(paths, graph)], graph, paths)
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(data, batch_size=None, num_workers=1)
    assert torch.equal(torch.stack(list(loader)), torch.stack([data[n] for n in range(4)]))


def test_object_code_is_kept_and_a_damaged_file_is_made_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path))
    kernel = receiver_kernel(paths_of("3x0e", "0e + 1o", "1o"), True, False, "double", 4)
    made = []
    original = compiler._object
    monkeypatch.setattr(compiler, "_object", lambda text: made.append(text) or original(text))
    compiler.address.__wrapped__(kernel)
    compiler.address.__wrapped__(kernel)
    assert len(made) == 1
    (file,) = (tmp_path / "kernels").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    compiler.address.__wrapped__(kernel)
    assert len(made) == 2
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_does_no_harm(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "file"))
    compiler.address.__wrapped__(receiver_kernel(paths_of("3x0e", "0e", "0e"), True, False, "double", 4))


@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_vectors_of_any_width(lanes, monkeypatch):
    """Processors differ in the width of their vectors; LLVM splits what is wider than its own."""
    paths, graph = paths_of("5x0e + 8x1o", "0e + 1o", "0e + 1o"), graph_of(4, 9)
    factors = factors_of(paths, graph)
    expected = derivatives("reference", paths, graph, factors)
    monkeypatch.setattr(launch, "lanes", lambda size: lanes)
    launch.kernel_of.cache_clear()
    assert_same(derivatives("llvm", paths, graph, factors), expected)
    launch.kernel_of.cache_clear()


def test_kernels_say_what_they_take():
    paths = paths_of(*MACE)
    made = [
        receiver_kernel(paths, True, False, "float", 8),
        sender_kernel(paths, True, False, "float", 8),
        edge_kernel(paths, True, True, True, False, "float", 8),
    ]
    for kernel in made:
        assert kernel.text.count("ptr noalias") == kernel.pointers
    with pytest.raises(InputError, match="No path"):
        paths_of("1x0e", "0e", "1o")
