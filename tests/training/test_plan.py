"""The plan: which batches fit, from a few steps, and the error when memory runs out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from geoeq.errors import GeoeqError
from geoeq.training import plan as planning
from geoeq.training.memory import available_memory, give_back, is_out_of_memory, peak_memory, start_peak
from geoeq.training.parsing import read_recipe
from geoeq.training.plan import Measured, Plan, make_plan, print_plan
from geoeq.training.setup import Experiment, build_experiment

#: A model that runs out of memory above a number of atoms.
GREEDY = """
import torch
from geoeq.models import EGNN

MOST = 60

class GreedyEGNN(EGNN):
    def encode(self, data, graph):
        if data.num_nodes > MOST:
            raise torch.OutOfMemoryError("out of memory")
        return super().encode(data, graph)
"""


@pytest.fixture
def experiment(recipe_file: Path) -> Experiment:
    return build_experiment(read_recipe(recipe_file, ["batch_size=8"]), recipe_file.name)


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 1 GB, on which a step takes 100 MB and 1 kB for each edge."""
    real = planning._measure

    def measure(*arguments: object) -> Measured:
        found = real(*arguments)  # type: ignore[arg-type]
        return Measured(
            found.size, found.graphs, found.atoms, found.edges, 10**8 + 1000 * found.edges, 1e-6 * found.edges
        )

    monkeypatch.setattr(planning, "_measure", measure)
    monkeypatch.setattr(planning, "available_memory", lambda device: 10**9)


def test_the_largest_size_is_where_the_line_meets_the_memory() -> None:
    steps = tuple(Measured(size, size, 20 * size, 0, 10**6 * (50 + 3 * size), 0.1 + size / 100) for size in (2, 4, 8))
    plan = Plan("batch_size", steps, 10**9, 10_000)
    assert plan.memory(100) == pytest.approx(350e6)
    assert plan.seconds(100) == pytest.approx(1.1)
    assert plan.largest == (900 - 50) // 3
    assert Plan("batch_size", steps, 10**9, 70).largest == 70
    assert Plan("batch_size", steps, None, 70).largest is None
    assert Plan("batch_size", steps, 10**9, 10_000, failed=16).largest == 8
    assert Plan("batch_size", steps, 70 * 10**6, 10_000, failed=16).largest == 4
    assert Plan("batch_size", steps, None, 70, failed=16).largest == 8
    flat = tuple(Measured(size, size, 20 * size, 0, 10**6, 0.1) for size in (2, 4))
    assert Plan("batch_size", flat, 10**9, 70).largest is None
    assert Plan("batch_size", flat, 10**9, 70).seconds(50) == pytest.approx(0.1)


@pytest.mark.slow
def test_steps_are_measured_at_growing_sizes(experiment: Experiment, linear: None) -> None:
    plan = make_plan(experiment)
    assert [step.size for step in plan.measured] == [2, 4, 8, 16, 32, 64]
    assert all(step.graphs == step.size and step.edges > step.atoms > 10 * step.size for step in plan.measured)
    assert plan.biggest == plan.largest == 80  # all of the training set
    assert [step.size for step in make_plan(experiment, most=4).measured] == [2, 4]


def test_the_table_and_the_time_of_an_epoch(recipe_file: Path, linear: None, console: Console) -> None:
    recipe = read_recipe(recipe_file, ["batch_atoms=100"])
    print_plan(recipe, recipe_file, console)
    text = console.file.getvalue()
    assert "batch_atoms" in text
    assert "The largest batch that fits into 1.0 GB has batch_atoms: " in text
    assert "The recipe has batch_atoms: 100: an epoch takes 0.0 s, and a step 0.10 GB." in text


def test_want_of_memory_names_a_size_that_fits(
    tmp_path: Path, recipe_file: Path, train_small, linear: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greedy.py").write_text(GREEDY)
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = ["model.class_path=greedy.GreedyEGNN", "doctor=false"]
    with pytest.raises(GeoeqError, match=r"Memory ran out on cpu in a step with batch_atoms: 200\.") as error:
        train_small(*settings, "batch_atoms=200", folder="large")
    fits = int(str(error.value).partition("batch_atoms=")[2].partition(" ")[0])
    assert fits < 200
    with pytest.raises(GeoeqError, match=r"batch_size=[1-4] fits"):  # larger ones failed before
        train_small(*settings, "batch_size=64", "model.init_args.width=9", folder="other")
    monkeypatch.setattr("greedy.MOST", 3)
    with pytest.raises(GeoeqError, match="Smaller batches could not be measured either"):
        train_small(*settings, "batch_size=64", "model.init_args.width=9", folder="none")
    with pytest.raises(GeoeqError, match="Memory ran out on cpu in a step with the smallest batch_size: 1"):
        make_plan(build_experiment(read_recipe(recipe_file, [*settings, "batch_size=64"]), recipe_file.name))


def test_other_errors_are_not_taken_for_want_of_memory(tmp_path: Path, train_small, monkeypatch) -> None:
    (tmp_path / "broken.py").write_text(
        GREEDY.replace("torch.OutOfMemoryError", "RuntimeError").replace("out of", "bad")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match="bad memory"):
        train_small("model.class_path=broken.GreedyEGNN")


def test_the_peak_is_that_of_what_was_computed() -> None:
    device = torch.device("cpu")
    start_peak(device)
    before = peak_memory(device)
    torch.ones(2**25).sum()  # 128 MB
    grown = peak_memory(device) - before
    assert 100e6 < grown < 200e6
    start_peak(device)
    assert peak_memory(device) - before < 60e6
    available = available_memory(device)
    assert available is None or available > before


def test_the_memory_of_a_gpu_is_that_of_its_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    device, peaks = torch.device("cuda"), [7 * 10**9]
    fakes = {
        "is_available": lambda: True,
        "empty_cache": lambda: peaks.append(0),
        "mem_get_info": lambda of: (10**9, 16 * 10**9),  # another process has the rest
        "memory_reserved": lambda of: 3 * 10**9,
        "max_memory_allocated": lambda of: peaks[-1],
        "reset_peak_memory_stats": lambda of: peaks.append(2 * 10**9),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    assert available_memory(device) == 4 * 10**9
    start_peak(device)
    assert peak_memory(device) == 2 * 10**9
    give_back()
    assert peaks[-1] == 0


@pytest.mark.parametrize(
    ("error", "wanting"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_what_says_that_memory_is_wanting(error: Exception, wanting: bool) -> None:
    assert is_out_of_memory(error) is wanting


@pytest.mark.gpu
def test_the_plan_of_a_gpu_holds(recipe_file: Path) -> None:
    settings = ["device=cuda", "sample=false", "batch_size=64", "model.init_args.width=128"]
    experiment = build_experiment(read_recipe(recipe_file, settings), recipe_file.name)
    plan = make_plan(experiment)
    (larger,) = make_plan(experiment, most=1).measured[:1]
    assert larger.memory < plan.memory(64)
    assert plan.memory(512) == pytest.approx(plan.measured[-1].memory, rel=0.2)
