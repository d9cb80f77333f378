"""Write a stored checkpoint for each model that has none in the current format version: ``python make.py [NAME ...]``.

A stored checkpoint is never rewritten: test_stored_checkpoints.py loads all of them, of every version, for ever.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch_geometric.data import Batch

import geoeq.models
from geoeq.geometry.random_structures import random_batch
from geoeq.models.checkpoint import FORMAT_VERSION, load_checkpoint, save_checkpoint

FOLDER = Path(__file__).resolve().parent
INPUT = FOLDER / "input.safetensors"
SIZES = (4, 1, 3)


def load_input() -> Batch:
    """Three stored structures with everything that a model may read."""
    batch = random_batch(SIZES)
    for name, value in load_file(INPUT).items():
        batch[name] = value
    return batch


def main(names: list[str]) -> None:
    """Write what is missing."""
    if not INPUT.exists():
        batch = random_batch(SIZES)
        save_file({name: batch[name] for name in ("z", "pos", "vel", "charge", "x", "tags")}, INPUT)
    for name in names or geoeq.models.__all__:
        kind = getattr(geoeq.models, name)
        folder = FOLDER / f"v{FORMAT_VERSION}" / name
        if folder.exists() or not (isinstance(kind, type) and issubclass(kind, geoeq.models.Model)):
            continue
        if getattr(kind, "__abstractmethods__", None):
            continue
        torch.manual_seed(0)
        model = kind.example().double()
        for parameter in model.parameters():  # so that every branch counts
            torch.nn.init.normal_(parameter, std=0.3)
        save_checkpoint(model, folder)
        outputs = load_checkpoint(folder)[0](load_input())
        save_file({key: value.detach().contiguous() for key, value in outputs.items()}, folder / "output.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
