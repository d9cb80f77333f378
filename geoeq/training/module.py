"""The training step as a LightningModule: the model, its loss and its averaged weights."""

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
    """Model in training.

    Args:
        model: model to train.
        recipe: settings of the run.
        loss: loss function of the targets.
        schedule: learning-rate schedule.
        factors: target -> factor from the internal unit to the unit of the report.

    Attributes:
        step: number of optimizer steps done.
        measured: results of an epoch over all processes, "train loss", "valid MAE energy" ... -> value, in the units
            of the report.
        sums: "train" and "valid" -> sums of the errors in the current epoch.
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
        """The model that is validated and saved: the averaged one if there is one."""
        return self.model if self.average is None else self.average.model

    def configure_model(self) -> None:
        """Shard the weights and their average, with FSDP.

        The whole model is one FSDP unit: forces are derivatives inside its forward pass, which fails if layers free
        their weights on the way.
        """
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            fully_shard(self.model, mesh=mesh)
            if self.average is not None:
                fully_shard(self.average.model, mesh=mesh, reshard_after_forward=True)  # never differentiated

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam or AdamW, as the recipe specifies."""
        settings = self._recipe.optimizer
        kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return kind(parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Clear the results of the last epoch."""
        self.measured = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate, and a random seed that depends on the step, so that a resumed run draws the same."""
        rate = self.learning_rate
        if self._recipe.budget is not None:  # the clocks of the processes differ
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
        """Return ``step_loss``, scaled so that Lightning's mean over processes and accumulated batches is their sum."""
        return self.trainer.world_size * self.trainer.accumulate_grad_batches * self.step_loss(batch)

    def step_loss(self, batch: Batch) -> Tensor:
        """Return the loss of one batch, with the auxiliary losses of the recipe.

        If the batch is a part of a step, it is that part of the loss of the step: the gradients of all parts add up to
        the gradient of the whole step in one batch.
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
        """Count the step and update the average, unless more batches are to be accumulated."""
        if self.trainer.global_step == self._global_step:
            return
        self._global_step = self.trainer.global_step
        self.step += 1
        if self.average is not None:
            self.average.update(self.model, self.step)
        if self._recipe.max_steps is not None and self.step >= self._recipe.max_steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the errors of one batch, with the weights that would be saved."""
        self._measure("valid", self.evaluated, batch)

    def on_validation_epoch_end(self) -> None:
        """Write the results of the validation into ``measured``."""
        self._read("valid")

    def on_train_epoch_end(self) -> None:
        """Write the results of the training steps and the extra metrics of the model into ``measured``."""
        self._read("train")
        self.measured |= self.model.extra_metrics()

    def add_up(self, values: Tensor) -> Tensor:
        """Return the sum over all processes; each of them has to call this."""
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    def _measure(self, stage: str, model: Model, batch: Batch) -> dict[str, tuple[Tensor, Tensor | int]]:
        """Return target -> sum and number of the errors in the loss; zero for a batch that only fills up a step."""
        outputs = model(batch)
        outputs = {name: free(name, values, batch) for name, values in outputs.items()}
        targets = {name: free(name, batch[name], batch) for name in self._factors}
        counted = _counted(batch)
        sums = {
            name: (total * counted, count * counted)
            for name, (total, count) in self._loss.sums(outputs, targets, batch.ptr.diff()).items()
        }
        errors = self.sums[stage]
        for name, (total, count) in sums.items():
            errors.add(_loss_label(name), total, count)
        for name, factor in self._factors.items():
            error = (outputs[name].detach().double() - targets[name].double()) * factor
            error = error.square() if headline(name) == "MSE" else error.abs()
            errors.add(name, error.sum() * counted, error.numel() * counted)
        return sums

    def _read(self, stage: str) -> None:
        errors = self.sums[stage]
        means = errors.means(errors.reduced(self.add_up, self.device))
        self.measured[f"{stage} loss"] = sum(means.get(_loss_label(name), 0.0) for name in self._factors)
        for name, value in means.items():
            if name in self._factors:
                self.measured[f"{stage} {headline(name)} {name}"] = value
            elif not name.startswith(_LOSS):
                self.measured[f"{stage} {name}"] = value
        errors.reset()


def auxiliary_label(name: str) -> str:
    """Return the name of an auxiliary loss in logs, without the stage."""
    return f"auxiliary {name}"


_LOSS = "loss of "


def _loss_label(name: str) -> str:
    return f"{_LOSS}{name}"


def _whole_step(batch: Batch) -> Tensor | None:
    """Return graphs, atoms and free atoms of the whole step and whether this part counts; None for a whole step."""
    return batch.whole_step[0] if "whole_step" in batch else None


def _counted(batch: Batch) -> Tensor | int:
    whole = _whole_step(batch)
    return 1 if whole is None else whole[3]


def _level(name: str, batch: Batch) -> int:
    """Return the index in ``whole_step`` of the number of rows of a target."""
    if field(name).level != "node":
        return 0
    return 2 if name in MOVED and "fixed" in batch else 1


def _components(values: Tensor) -> int:
    return math.prod(values.shape[1:])


class AverageWeights(nn.Module):
    """Copy of a model with the exponential moving average (EMA) of its weights.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that even a short run forgets its random initial weights.

    Args:
        model: model to average; the copy is never trained.
        decay: decay of the moving average, below 1.

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
        """Update the average after step ``step`` of ``model``, counted from 1; buffers are copied, not averaged."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, current = (
            [_local(parameter.detach()) for parameter in of.parameters()] for of in (self.model, model)
        )
        get_ema_multi_avg_fn(decay)(averages, current, step)
        for average, buffer in zip(self.model.buffers(), model.buffers()):
            average.copy_(buffer)


def _local(weights: Tensor) -> Tensor:
    """Return the shard of this process, or all of the weights if they are not sharded."""
    return weights.to_local() if isinstance(weights, DTensor) else weights
