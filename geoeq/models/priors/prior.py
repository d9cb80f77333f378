"""The Prior contract: energies of atoms that are known before anything is learnt."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.graph import Graph, build_graph
from geoeq.models.config import Configurable
from geoeq.models.heads.head import Head

__all__ = ["Prior", "pairs_within"]


class Prior(Configurable, nn.Module, ABC):
    """Structures, and what a network says of them, to energies of atoms. ``WithPriors`` adds them to a network's.

    Its buffers keep their dtype, float64, whatever that of the model becomes; register them as not persistent.

    Attributes:
        needs: outputs of the network that it reads. What it gives is then learnt too.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, for tests and documentation."""

    @abstractmethod
    def forward(self, data: Data, outputs: Mapping[str, Tensor]) -> Tensor:
        """The energies of the atoms.

        Args:
            data: structures, as a model takes them, in float64.
            outputs: those of the network.

        Shapes:
            Returns [N] eV, float64; differentiable by ``data.pos`` and ``data.cell``.
        """

    def heads(self) -> list[Head]:
        """Heads for what it needs, which a recipe gives to a network that is written without heads."""
        return []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self.named_buffers(recurse=False))  # which a change of the dtype of the model does not round
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def reach(self, elements: Sequence[int] | None = None) -> float:
        """How far apart two atoms feel each other, in Å, where there are no other elements; infinity by default."""
        return math.inf


def pairs_within(data: Data, cutoff: float) -> Graph:
    """All pairs closer than a cutoff, perhaps with others that are further apart: those that the data bring, if enough.

    While torch.compile or torch.export looks, the edges of the data are taken: ``WithPriors`` sees that they suffice.
    """
    given = getattr(data, "edge_cutoff", None)
    if given is None or getattr(data, "edge_index", None) is None:
        return build_graph(data, cutoff)
    enough = torch.compiler.is_compiling() or bool((given >= cutoff).all())
    return build_graph(data, None if enough else cutoff)
