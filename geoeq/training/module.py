"""The training step: a model, its loss and its average weights, as Lightning wants them."""

from __future__ import annotations

import copy
import math

import lightning
import numpy as np
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch_geometric.data import Batch

from geoeq.fields import field
from geoeq.models import Model
from geoeq.training.evaluation.metrics import MOVED, MetricSums, free, headline
from geoeq.training.losses import Loss
from geoeq.training.recipe import Recipe
from geoeq.training.schedule import Schedule

__all__ = ["AverageWeights", "TrainingModule", "auxiliary_label"]


class TrainingModule(lightning.LightningModule):
    """A model in training.

    Args:
        model: what is trained.
        recipe: the settings.
        loss: what is minimised.
        schedule: the learning rate.
        factors: target -> the factor from the unit inside to the unit of the report.

    Attributes:
        step: optimizer steps done.
        measured: after an epoch: "train loss", "valid MAE energy" ... -> value, in the units of the report; of all
            processes, and the same in each.
        sums: "train" and "valid" -> what is measured in the epoch so far.
    """

    def __init__(self, model: Model, recipe: Recipe, loss: Loss, schedule: Schedule, factors: dict[str, float]) -> None:
        super().__init__()
        self.model = model
        self.average = AverageWeights(model, recipe.ema) if recipe.ema is not None else None
        self.schedule = schedule
        self.step = 0
        self.measured: dict[str, float] = {}
        self._recipe = recipe
        self._loss = loss
        self._factors = factors
        names = [*map(_loss_label, factors), *factors]
        self.sums = {
            "train": MetricSums([*names, *map(auxiliary_label, recipe.loss.auxiliary)]),
            "valid": MetricSums(names),
        }
        self._global_step = 0

    @property
    def evaluated(self) -> Model:
        """The model that is validated and saved: the average one, where there is one."""
        return self.model if self.average is None else self.average.model

    def configure_model(self) -> None:
        """With FSDP, share out the weights, and those of the average.

        The whole model is one unit: forces are derivatives within its forward pass, which layers that give back their
        weights on the way would break.
        """
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            fully_shard(self.model, mesh=mesh)
            if self.average is not None:
                fully_shard(self.average.model, mesh=mesh, reshard_after_forward=True)  # it is never differentiated

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam or AdamW, as the recipe says."""
        settings = self._recipe.optimizer
        kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return kind(parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Measure anew."""
        self.measured = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of this step, and draw from its own seed: a resumed run draws what another draws."""
        rate = self.learning_rate
        if self._recipe.budget is not None:  # each process has a clock of its own
            rate = self.trainer.strategy.broadcast(rate)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        part = [self.trainer.global_rank, batch_idx % self.trainer.accumulate_grad_batches]
        seed = np.random.SeedSequence([self._recipe.seed, self.step, *part]).generate_state(1)[0]
        lightning.seed_everything(int(seed), verbose=False)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self._recipe.optimizer.lr * self.schedule.factor(self.step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """``step_loss``; Lightning takes the mean over processes and accumulated batches, where the sum is meant."""
        return self.trainer.world_size * self.trainer.accumulate_grad_batches * self.step_loss(batch)

    def step_loss(self, batch: Batch) -> Tensor:
        """The loss of one batch, with the auxiliary losses that the recipe asks for.

        Of a batch that is a part of a step it is the part of the step's loss: gradients of all parts, added up, are
        those of the whole step in one batch.
        """
        whole = _whole_step(batch)
        terms = []
        for name, (total, count) in self._measure("train", self.model, batch).items():
            rows = count if whole is None else whole[_level(name, batch)] * _components(batch[name])
            terms.append(total / torch.as_tensor(rows, device=total.device).clamp(min=1))
        graphs = batch.num_graphs * _counted(batch)
        for name, weight in self._recipe.loss.auxiliary.items():
            term = self.model.auxiliary_losses[name](batch)
            self.sums["train"].add(auxiliary_label(name), term * graphs, graphs)
            terms.append(weight * term * (1.0 if whole is None else graphs / whole[0]))
        return torch.stack(terms).sum()

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Count the step, and let the average follow; nothing yet where more batches are accumulated."""
        if self.trainer.global_step == self._global_step:
            return
        self._global_step = self.trainer.global_step
        self.step += 1
        if self.average is not None:
            self.average.update(self.model, self.step)
        if self._recipe.max_steps is not None and self.step >= self._recipe.max_steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure one batch with the weights that would be saved."""
        self._measure("valid", self.evaluated, batch)

    def on_validation_epoch_end(self) -> None:
        """Put the results of the validation into ``measured``."""
        self._read("valid")

    def on_train_epoch_end(self) -> None:
        """Put the results of the training steps, and what the model watches itself, into ``measured``."""
        self._read("train")
        self.measured |= self.model.extra_metrics()

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, each of which calls this."""
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    def _measure(self, stage: str, model: Model, batch: Batch) -> dict[str, tuple[Tensor, Tensor | int]]:
        """Target -> sum of the errors that the loss counts, and of how many; zero for a batch that does not count."""
        outputs = model(batch)
        outputs = {name: free(name, values, batch) for name, values in outputs.items()}
        targets = {name: free(name, batch[name], batch) for name in self._factors}
        counted = _counted(batch)
        sums = {
            name: (total * counted, count * counted)
            for name, (total, count) in self._loss.sums(outputs, targets, batch.ptr.diff()).items()
        }
        tally = self.sums[stage]
        for name, (total, count) in sums.items():
            tally.add(_loss_label(name), total, count)
        for name, factor in self._factors.items():
            error = (outputs[name].detach().double() - targets[name].double()) * factor
            error = error.square() if headline(name) == "MSE" else error.abs()
            tally.add(name, error.sum() * counted, error.numel() * counted)
        return sums

    def _read(self, stage: str) -> None:
        tally = self.sums[stage]
        found = tally.means(tally.reduced(self.add_up, self.device))
        self.measured[f"{stage} loss"] = sum(found.get(_loss_label(name), 0.0) for name in self._factors)
        for name, value in found.items():
            if name in self._factors:
                self.measured[f"{stage} {headline(name)} {name}"] = value
            elif not name.startswith(_LOSS):
                self.measured[f"{stage} {name}"] = value
        tally.reset()


def auxiliary_label(name: str) -> str:
    """What an auxiliary loss is called among what is measured, after its stage."""
    return f"auxiliary {name}"


_LOSS = "loss of "


def _loss_label(name: str) -> str:
    return f"{_LOSS}{name}"


def _whole_step(batch: Batch) -> Tensor | None:
    """Graphs, atoms and free atoms of the whole step, and whether this part of it counts; None if it is the whole."""
    return batch.whole_step[0] if "whole_step" in batch else None


def _counted(batch: Batch) -> Tensor | int:
    whole = _whole_step(batch)
    return 1 if whole is None else whole[3]


def _level(name: str, batch: Batch) -> int:
    """The place in ``whole_step`` of the number of rows that a target has."""
    if field(name).level != "node":
        return 0
    return 2 if name in MOVED and "fixed" in batch else 1


def _components(values: Tensor) -> int:
    return math.prod(values.shape[1:])


class AverageWeights(nn.Module):
    """A copy of a model whose weights follow those of the model slowly.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the random weights at the start are soon forgotten,
    however short the run.

    Args:
        model: what is followed; the copy is never trained.
        decay: of the moving average, below 1.

    Source:
        Polyak and Juditsky, SIAM J. Control Optim. 30, 838 (1992), for the average; the rising decay as in
        TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, model: Model, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: Model, step: int) -> None:
        """Follow ``model`` after its step ``step``, counted from 1.

        Buffers are not averaged but copied.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, current = ([_own(parameter.detach()) for parameter in of.parameters()] for of in (self.model, model))
        get_ema_multi_avg_fn(decay)(averages, current, step)
        for average, buffer in zip(self.model.buffers(), model.buffers()):
            average.copy_(buffer)


def _own(weights: Tensor) -> Tensor:
    """What this process has of weights that are shared out; else all."""
    return weights.to_local() if isinstance(weights, DTensor) else weights
