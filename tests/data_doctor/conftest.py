"""Real data that come with geoeq, and copies of them that something is done to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from geoeq.data import Dataset, load
from geoeq.geometry.rotations import random_rotations

Arrays = dict[str, Any]


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of data sets of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOEQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def copy_of() -> Callable[..., tuple[Dataset, Arrays]]:
    """``copy_of("rmd17")``: its sample, and its arrays to be changed."""

    def copied(name: str) -> tuple[Dataset, Arrays]:
        dataset = load(name, sample=True)
        batch = dataset.batch(range(len(dataset)), dtype=torch.float64)
        arrays = {"positions": batch.pos.numpy(), "ptr": batch.ptr.numpy(), "numbers": batch.z.numpy()}
        arrays |= {key: batch[key].numpy() for key in ("cell", "pbc") if key in batch}
        arrays |= {f"target.{key}": batch[key].numpy().copy() for key in dataset.targets}
        return dataset, {key: array.copy() for key, array in arrays.items()}

    return copied


@pytest.fixture(scope="session")
def pose() -> Callable[[Arrays, int, int], None]:
    """Put structure ``source`` in the place of ``target``, of the same size: turned, moved, atoms in another order."""

    def put(arrays: Arrays, source: int, target: int) -> None:
        ptr = arrays["ptr"]
        old, new = (slice(ptr[place], ptr[place + 1]) for place in (source, target))
        turn = random_rotations(1, torch.Generator().manual_seed(target), torch.float64)[0].numpy()
        order = np.random.default_rng(target).permutation(ptr[source + 1] - ptr[source])
        arrays["positions"][new] = (arrays["positions"][old] @ turn.T + [3.0, -2.0, 7.0])[order]
        arrays["numbers"][new] = arrays["numbers"][old][order]
        if "target.forces" in arrays:
            arrays["target.forces"][new] = (arrays["target.forces"][old] @ turn.T)[order]
        for key, array in arrays.items():
            if key.startswith("target.") and len(array) == len(ptr) - 1:
                array[target] = array[source]

    return put
