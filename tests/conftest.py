"""What every test starts from: a fixed seed, the settings of torch as they are, and no GPU where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from geoeq import kernels


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which kernels the tests are to use."""
    parser.addoption("--kernels", metavar="NAME", help="force a backend, as geoeq.kernels.use does")


@pytest.fixture(autouse=True, scope="session")
def forced_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Those that were asked for; by default each test has what geoeq chooses."""
    name = request.config.getoption("--kernels")
    with kernels.use(name) if name else contextlib.nullcontext():
        yield


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Each test begins with the same seed and leaves the global settings of torch as they were."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.fixture
def float64() -> Iterator[None]:
    """float64 as the default dtype: e3nn's Wigner matrices are exact only then."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def checkout() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked gpu are skipped where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
