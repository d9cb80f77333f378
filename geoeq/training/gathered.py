"""Weights and state of the optimizer in one piece, also where FSDP has shared them out."""

from __future__ import annotations

from typing import Any, cast

import lightning
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as shared

from geoeq.training.module import TrainingModule

__all__ = ["best_weights", "model_and_optimizer", "restore_model_and_optimizer"]

_MODEL = "model."
_WHOLE = shared.StateDictOptions(full_state_dict=True, cpu_offload=True)


def best_weights(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Tensor]:
    """A copy on the CPU of the weights that would be saved; with FSDP the first process alone has it, and all call."""
    if isinstance(trainer.strategy, FSDPStrategy):
        return _gathered_model(trainer)
    return {name: value.detach().cpu().clone() for name, value in module.evaluated.state_dict().items()}


def model_and_optimizer(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Any]:
    """ "model" and "optimizer", as a state keeps them; all processes call this."""
    if isinstance(trainer.strategy, FSDPStrategy):
        optimizer = shared.get_optimizer_state_dict(_root(trainer), trainer.optimizers[0], options=_WHOLE)
        return {"model": _gathered_model(trainer), "optimizer": optimizer}
    return {"model": module.model.state_dict(), "optimizer": trainer.optimizers[0].state_dict()}


def restore_model_and_optimizer(trainer: lightning.Trainer, module: TrainingModule, state: dict[str, Any]) -> None:
    """Go on with what ``model_and_optimizer`` gave; every process has read it."""
    if isinstance(trainer.strategy, FSDPStrategy):
        root = _root(trainer)
        weights = {f"{_MODEL}{name}": value for name, value in state["model"].items()}
        shared.set_model_state_dict(root, weights, options=_WHOLE)
        shared.set_optimizer_state_dict(root, trainer.optimizers[0], state["optimizer"], options=_WHOLE)
        return
    module.model.load_state_dict(state["model"])
    trainer.optimizers[0].load_state_dict(state["optimizer"])


def _gathered_model(trainer: lightning.Trainer) -> dict[str, Tensor]:
    found = shared.get_model_state_dict(_root(trainer), options=_WHOLE)
    return {name.removeprefix(_MODEL): value for name, value in found.items() if isinstance(value, Tensor)}


def _root(trainer: lightning.Trainer) -> nn.Module:
    return cast(nn.Module, trainer.strategy.model)
