"""Constants are the same wherever they are first asked for."""

from __future__ import annotations

import torch

from geoeq.constants import constant, default_dtype


def test_constants_are_exact_on_the_cpu_and_made_once():
    calls = []

    @constant
    def third(degree):
        calls.append(degree)
        return torch.ones(degree) / 3

    with torch.device("meta"), default_dtype(torch.float16):
        first = third(2)
    assert third(2) is first
    assert calls == [2]
    assert first.dtype == torch.float64
    assert first.device.type == "cpu"
    assert torch.equal(first, torch.tensor([1 / 3, 1 / 3], dtype=torch.float64))
    assert torch.get_default_dtype() == torch.float32
