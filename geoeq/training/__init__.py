"""Training: recipes, the loop, metrics, checkpoints, and what is done with a trained model.

Importing this package needs no extra; training itself needs "train".
"""

from __future__ import annotations

from geoeq.training.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["load_checkpoint", "save_checkpoint"]
