"""How long a trained model takes for a structure."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data import Dataset
from geoeq.models import Model

__all__ = ["inference_milliseconds"]


def inference_milliseconds(
    model: Model,
    dataset: Dataset,
    places: NDArray[np.int64],
    *,
    device: torch.device,
    batch_size: int = 128,
    passes: int = 5,
    seconds: float = 10.0,
) -> float:
    """Milliseconds that a structure takes, in batches, as the median of several passes.

    The time is that from a batch in memory, with its edges, to the outputs, without derivatives; a first pass is not
    counted.

    Args:
        model: what is timed.
        dataset: the records.
        places: of the structures.
        device: where to compute.
        batch_size: structures at once.
        passes: over the structures, at the most.
        seconds: after which no further pass begins.
    """
    dtype = next(model.parameters()).dtype
    model = model.to(device).eval()
    loader = dataset.loader(places, batch_size, cutoff=model.cutoff, targets=[], dtype=dtype)
    batches = [batch.to(device) for batch in loader]

    def run() -> float:
        start = time.perf_counter()
        for batch in batches:
            model(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with torch.no_grad():
        model(batches[0])
        times = [run()]
        while len(times) < passes and sum(times) < seconds:
            times.append(run())
    return 1e3 * statistics.median(times) / len(places)
