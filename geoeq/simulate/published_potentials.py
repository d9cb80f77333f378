"""Potentials from the files of their authors, read without executing code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from geoeq.data.pickles import read_pickle
from geoeq.errors import CheckpointError
from geoeq.models import Forces, NequIP
from geoeq.models.published.sevennet_settings import ENTRIES
from geoeq.models.published.sevennet_weights import is_sevennet

__all__ = ["load_sevennet"]


def load_sevennet(path: str | Path, modality: str | None = None, stress: bool = True) -> Forces:
    """Return the potential in a checkpoint file of SevenNet, such as ``checkpoint_sevennet_0.pth``, as a geoeq model.

    The wheel of the package sevenn contains such files (under sevenn/pretrained_potentials), and so do the runs of its
    users. The package itself is not needed, and nothing in the file is executed.

    Args:
        path: the checkpoint file.
        modality: for a network of several levels of theory, the name of one, such as "PBE". The model predicts that
            one; load the file again for another.
        stress: also predict the stress of periodic structures.

    Raises:
        DataError: the file is truncated, or contains other things than data.
        CheckpointError: it is not a checkpoint of SevenNet, or its network is not supported.
    """
    path = Path(path)
    content = read_pickle(path)
    config = content.get("config") if isinstance(content, dict) else None
    stored = content.get("model_state_dict") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not isinstance(stored, dict):
        raise CheckpointError(
            f"{path}: a checkpoint of SevenNet has 'config' and 'model_state_dict', which this lacks."
        )
    if not isinstance(config.get("version"), str):
        raise CheckpointError(f"{path}: its configuration lacks 'version', that of the sevenn which wrote it.")
    if not is_sevennet(stored):
        raise CheckpointError(
            f"{path}: its parameters do not have the names that sevenn gives them today. Networks of early versions, "
            "such as SevenNet-0 of 22 May 2024, are not supported."
        )
    parameters = {name: torch.from_numpy(np.array(value)) for name, value in stored.items()}
    entries = {name: value for name, value in config.items() if name in ENTRIES}
    try:
        network = NequIP.from_reference(parameters, **entries, modality=modality)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Forces(network.eval(), stress=stress).eval()
