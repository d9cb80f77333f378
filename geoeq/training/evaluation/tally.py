"""Means over an epoch that are exact: sums and counts are kept, and added up over all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["Tally"]


class Tally:
    """Sums and counts by name, in float64.

    A mean of them does not depend on how structures were divided into batches, or among processes.

    Args:
        names: of what is counted.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._pairs: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: Tensor | float) -> None:
        """Count ``total``, the sum of ``count`` values."""
        pair = torch.stack([total.detach().double(), torch.as_tensor(count, device=total.device).double()])
        self._pairs[name] = self._pairs[name].to(pair.device) + pair if name in self._pairs else pair

    def reduced(self, add_up: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
        """Sums and counts of all processes, [names, 2], on the CPU.

        Args:
            add_up: the sum of a tensor over the processes, each of which calls this.
            device: where processes can add up.
        """
        nothing = torch.zeros(2, dtype=torch.float64, device=device)
        own = torch.stack([self._pairs.get(name, nothing).to(device) for name in self.names])
        return add_up(own).cpu()

    def reset(self, pairs: Tensor | None = None) -> None:
        """Begin anew, or with what ``reduced`` gave."""
        self._pairs = {} if pairs is None else dict(zip(self.names, pairs.double()))

    def means(self, pairs: Tensor) -> Mapping[str, float]:
        """The means of what was counted at all, of what ``reduced`` gave."""
        return {name: float(total / count) for name, (total, count) in zip(self.names, pairs) if count > 0}
