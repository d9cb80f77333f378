"""Several processes, or accumulated batches, give the result of one process with one large batch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from geoeq.data import load
from geoeq.data.sampler import Share
from geoeq.errors import RecipeError
from geoeq.files import read_log
from geoeq.models import load_checkpoint
from geoeq.training.distributed import launched
from geoeq.training.module import TrainingModule
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train
from geoeq.training.schedule import Schedule
from geoeq.training.setup import build_experiment

#: Energies per graph and forces per atom, with fixed atoms: the numbers of values differ between batches.
CATALYST = """
dataset: oc20_s2ef_200k
target: [energy, forces]
sample: true
forces: direct
model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}
loss: {name: mae, weights: {forces: 3.0}}
precision: "64"
device: cpu
"""

#: A model that kills the process of one rank when it is called for the n-th time.
DYING = """
import os, signal
from geoeq.models import EGNN

class DyingEGNN(EGNN):
    calls = 0

    def encode(self, data, graph):
        DyingEGNN.calls += 1
        rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID"))
        if rank == "1" and os.environ.get("DIE_IN_CALL") == str(DyingEGNN.calls):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(data, graph)
"""

EXACT = ["precision=64", "ema=0.9", "gradient_clip=1.0", "loss.name=huber", "epochs=3"]


def geoeq(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "geoeq", *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def on_two_machines(starter: str, folder: Path, *arguments: str, **environment: str) -> list[tuple[int, str, str]]:
    """The command line in one process on each of two machines, which are this one: statuses, outputs and errors."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)]), **environment}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in "01":
        if starter == "torchrun":
            options = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", rank, "--master-addr", "127.0.0.1"]
            command = ["-m", "torch.distributed.run", *options, "--master-port", port, "-m", "geoeq"]
            given = {}
        else:
            command, steps = ["-m", "geoeq"], {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "1"}
            place = {"SLURM_PROCID": rank, "SLURM_LOCALID": "0", "SLURM_NODEID": rank, "SLURM_NTASKS": "2"}
            job = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "4242", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": port}
            given = steps | place | job
        processes.append(
            subprocess.Popen(
                [sys.executable, *command, *arguments],
                env=environment | given,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        return [(process.wait(), *pipes) for process in processes for pipes in [process.communicate(timeout=500)]]
    finally:
        for process in processes:
            process.kill()


def numbers(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_log(folder / "log.csv")]


def assert_same_run(one: Path, two: Path) -> None:
    for ours, theirs in zip(numbers(one), numbers(two), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)  # as many digits as a log has
    weights = [load_checkpoint(folder, trust=True)[0].state_dict() for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-9, atol=1e-11)


def gradients(module: TrainingModule, batches: list[object], processes: int, accumulate: int) -> list[torch.Tensor]:
    """As Lightning makes them: the mean over processes and accumulated batches."""
    module.trainer = SimpleNamespace(world_size=processes, accumulate_grad_batches=accumulate)
    module.zero_grad()
    for number, batch in enumerate(batches):
        (module.training_step(batch, number) / (processes * accumulate)).backward()
    return [weight.grad.clone() for weight in module.model.parameters() if weight.grad is not None]


@pytest.mark.parametrize(
    ("count", "processes", "accumulate"),
    [(5, 2, 1), (4, 1, 2), (5, 2, 2), (1, 2, 1)],  # of one structure there is none for the second process
)
def test_the_parts_of_a_step_have_the_gradient_of_the_whole(
    tmp_path: Path, count: int, processes: int, accumulate: int
) -> None:
    file = tmp_path / "catalyst.yaml"
    file.write_text(CATALYST)
    recipe = read_recipe(file, [])
    experiment = build_experiment(recipe, file.name)
    module = TrainingModule(
        experiment.model, recipe, experiment.loss(), Schedule(recipe.schedule, 1, 1), experiment.factors
    )
    options = experiment.loader_options()
    (whole,) = experiment.dataset.loader(range(count), count, **options)
    assert 0 < int((whole.fixed == 0).sum()) < whole.num_nodes
    size = -(-count // (processes * accumulate))
    shares = [Share(rank, processes, accumulate) for rank in range(processes)]
    parts = [list(experiment.dataset.loader(range(count), size, share=share, **options)) for share in shares]
    found = []
    tally = module.sums["train"]
    for batches, *of in (([whole], 1, 1), (list(chain.from_iterable(parts)), processes, accumulate)):
        found.append(gradients(module, batches, *of))
        found[-1].append(tally.reduced(lambda values: values, torch.device("cpu")))
        tally.reset()
    assert len(found[0]) == len(found[1]) > 2
    for theirs, ours in zip(*found):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_accumulated_batches_are_one_large_one(train_small) -> None:
    whole, _ = train_small(*EXACT, "batch_size=16", folder="whole")
    parts, _ = train_small(*EXACT, "batch_size=4", "accumulate=4", folder="parts")
    assert numbers(whole)[-1]["step"] == 15
    assert_same_run(whole, parts)


def test_batches_of_atoms_train(train_small) -> None:
    folder, _ = train_small("batch_atoms=120", "epochs=3")
    qm7 = load("qm7", sample=True)
    atoms = sum(qm7.batch([place]).num_nodes for place in qm7.split()["train"])
    steps = read_log(folder / "log.csv")[-1]["step"]
    assert atoms / 120 <= steps / 3 < 1.3 * atoms / 120
    with pytest.raises(RecipeError, match=r"small.yaml: batch_edges: Structure \d+ has \d+ edges.*batch_edges to \d+"):
        train_small("batch_edges=5", folder="small")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["devices=2"], "2 processes, but only this one was started. Use the command line"),
        (["strategy=fsdp"], "fsdp shards the weights over several devices. Use --devices N, or ddp"),
        (["strategy=fsdp", "budget=9"], "'budget' must be null with strategy: fsdp, not 9"),
        (["batch_atoms=9", "batch_edges=8"], "batch_atoms: 9 and batch_edges: 8 exclude each other"),
        (["accumulate=0"], "'accumulate' must be 1 or more"),
    ],
)
def test_what_cannot_be(train_small, settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train_small(*settings)


@pytest.mark.slow
def test_two_processes_are_one_with_batches_twice_as_large(tmp_path: Path, recipe_file: Path, train_small) -> None:
    done = geoeq(tmp_path, "train", str(recipe_file), *EXACT, "batch_size=9", "run=two", "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert "on cpu in 2 processes" in done.stdout
    assert done.stdout.count("epoch 3/3") == 1
    train_small(*EXACT, "batch_size=18", folder="one")
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_the_run_goes_on(tmp_path: Path, recipe_file: Path, train_small) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    settings = ["model.class_path=dying.DyingEGNN", *EXACT, "save_every=2", "batch_size=8", "--devices", "2"]
    command = ["train", str(recipe_file), "run=killed", *settings]
    died = geoeq(tmp_path, *command, DIE_IN_CALL="10")
    assert died.returncode == 2, died.stderr
    assert "Process 1 of 2 (counted from 0) was ended by SIGKILL, perhaps because memory ran out" in died.stderr
    assert "The others were stopped." in died.stderr
    assert "Traceback" not in died.stderr
    again = geoeq(tmp_path, *command)
    assert again.returncode == 0, again.stderr
    assert "Resuming after epoch 1 and 2 batches." in again.stdout
    train_small(*EXACT, "batch_size=16", folder="whole")
    for ours, theirs in zip(numbers(tmp_path / "killed"), numbers(tmp_path / "whole"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.slow
def test_two_machines_under_torchrun_are_one_process(tmp_path: Path, recipe_file: Path, train_small) -> None:
    options = ["--devices", "1", "--num-nodes", "2"]
    done = on_two_machines("torchrun", tmp_path, "train", str(recipe_file), *EXACT, "batch_size=9", "run=two", *options)
    assert [status for status, *_ in done] == [0, 0], done
    assert "on cpu in 2 processes" in done[0][1]
    assert done[1][1] == ""
    train_small(*EXACT, "batch_size=18", folder="one")
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_with_fsdp_a_machine_that_dies_under_srun_ends_the_other_and_the_run_goes_on(
    tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forces are derivatives, weights are averaged, and gradients clipped: each where weights are shared out."""
    (tmp_path / "dying.py").write_text(DYING)
    file = tmp_path / "catalyst.yaml"
    file.write_text(CATALYST.replace("forces: direct", "forces: gradient").replace("geoeq.models.", "dying.Dying"))
    settings = ["epochs=3", "ema=0.9", "gradient_clip=1.0", "threads=1", "doctor=false", "save_every=1"]
    command = ["train", str(file), *settings, "batch_size=1", "run=killed", "--num-nodes", "2", "--strategy", "fsdp"]
    (status, _, error), (killed, *_) = on_two_machines("srun", tmp_path, *command, DIE_IN_CALL="8")
    assert (status, killed) == (2, -signal.SIGKILL), error
    assert "Process 0 of 2 (counted from 0) lost another process, which has ended. Run the same commands again" in error
    assert "Traceback" not in error
    done = on_two_machines("srun", tmp_path, *command)
    assert [status for status, *_ in done] == [0, 0], done
    assert "Resuming after epoch" in done[0][1]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dying", raising=False)
    train(read_recipe(file, [*settings, "batch_size=2", f"run={tmp_path / 'one'}"]), file, console)
    assert_same_run(tmp_path / "one", tmp_path / "killed")


SRUN = {
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("variables", "settings", "message"),
    [
        (SRUN, ["devices=2", "num_nodes=2"], "srun has started 4 processes without their number per machine"),
        (SRUN | {"SLURM_NTASKS_PER_NODE": "2"}, ["devices=2"], "2 processes, but 4 were started, 2 on each of 2 mach"),
        (SRUN | {"SLURM_NTASKS_PER_NODE": "2"}, ["num_nodes=4"], "Use --devices 2 --num-nodes 2"),
        (TORCHRUN, ["devices=2"], "small.yaml: devices: 2 and num_nodes: 1 mean 2 processes, but 4 were started"),
        (TORCHRUN, ["devices=4"], "4 were started, 2 on each of 2 machines. Use --devices 2 --num-nodes 2"),
        (TORCHRUN, [], "Use --devices 2 --num-nodes 2"),
    ],
)
def test_processes_that_were_started_otherwise(
    train_small, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], settings: list[str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=message):
        train_small(*settings)


def test_a_batch_script_of_slurm_is_no_srun(train_small, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in it runs alone, with the variables of the experiment."""
    for name, value in SRUN.items():
        if name != "SLURM_STEP_NUM_TASKS":
            monkeypatch.setenv(name, value)
    assert not launched()
    folder, _ = train_small("epochs=1")
    assert (folder / "results.json").exists()


@pytest.mark.slow
def test_a_budget_ends_all_processes_together(tmp_path: Path, recipe_file: Path) -> None:
    done = geoeq(tmp_path, "train", str(recipe_file), "budget=2.0", "run=timed", "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert read_log(tmp_path / "timed" / "log.csv")[-1]["budget seconds"] >= 2.0
