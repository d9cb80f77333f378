"""Weights and state of the optimizer in one piece, also where FSDP has shared them out."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as shared

from geoeq.training.module import TrainingModule

__all__ = ["best_weights", "restore_weights", "weights_and_optimizer"]

_WHOLE = shared.StateDictOptions(full_state_dict=True, cpu_offload=True)


def best_weights(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Tensor]:
    """A copy on the CPU of the weights that would be saved; with FSDP the first process alone has it, and all call."""
    found = _weights(trainer, module.evaluated)
    return {name: value.detach().cpu().clone() for name, value in found.items()}


def weights_and_optimizer(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Any]:
    """ "model", "average" and "optimizer", as a state keeps them; all processes call this."""
    average, optimizer = module.average, trainer.optimizers[0]
    return {
        "model": _weights(trainer, module.model),
        "average": None if average is None else _weights(trainer, average),
        "optimizer": shared.get_optimizer_state_dict(module.model, optimizer, options=_WHOLE)
        if _shared_out(trainer)
        else optimizer.state_dict(),
    }


def restore_weights(trainer: lightning.Trainer, module: TrainingModule, state: dict[str, Any]) -> None:
    """Go on with what ``weights_and_optimizer`` gave; every process has read it."""
    average, optimizer = module.average, trainer.optimizers[0]
    _restore(trainer, module.model, state["model"])
    if average is not None:
        _restore(trainer, average, state["average"])
    if _shared_out(trainer):
        shared.set_optimizer_state_dict(module.model, optimizer, state["optimizer"], options=_WHOLE)
    else:
        optimizer.load_state_dict(state["optimizer"])


def _weights(trainer: lightning.Trainer, model: nn.Module) -> dict[str, Tensor]:
    if not _shared_out(trainer):
        return model.state_dict()
    found = shared.get_model_state_dict(model, options=_WHOLE)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _restore(trainer: lightning.Trainer, model: nn.Module, weights: dict[str, Any]) -> None:
    if _shared_out(trainer):
        shared.set_model_state_dict(model, weights, options=_WHOLE)
    else:
        model.load_state_dict(weights)


def _shared_out(trainer: lightning.Trainer) -> bool:
    return isinstance(trainer.strategy, ModelParallelStrategy)
