"""The Prior contract: atomic energies that are known before training."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.graph import Graph, build_graph
from geoeq.layers.layer import WithExample
from geoeq.models.config import Configurable
from geoeq.models.heads.head import Head

__all__ = ["Prior", "pairs_within"]


class Prior(Configurable, nn.Module, WithExample):
    """Base class of priors, from structures and network outputs to atomic energies, which ``WithPriors`` adds.

    Buffers stay float64 when the dtype of the model changes; register them as not persistent.

    Attributes:
        needs: outputs of the network that the prior reads; its energy is then learned, too.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, data: Data, outputs: Mapping[str, Tensor]) -> Tensor:
        """Return the energies of the atoms.

        Args:
            data: structures, as inputs of a model, in float64.
            outputs: outputs of the network.

        Shapes:
            Returns [N] eV, float64; differentiable by ``data.pos`` and ``data.cell``.
        """

    def heads(self) -> list[Head]:
        """Return heads for the outputs that it needs; recipes add them to networks specified without heads."""
        return []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = dict(self.named_buffers(recurse=False))  # stay float64 when the dtype of the model changes
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def reach(self, elements: Sequence[int] | None = None) -> float:
        """Return the interaction range of atoms of these elements, in Å; infinity by default."""
        return math.inf


def pairs_within(data: Data, cutoff: float) -> Graph:
    """Return the graph of all pairs within a cutoff; it may contain longer pairs if the data have edges that suffice.

    Under torch.compile and torch.export the edges of the data are used; ``WithPriors`` checks that they suffice.
    """
    edge_cutoff = getattr(data, "edge_cutoff", None)
    if edge_cutoff is None or getattr(data, "edge_index", None) is None:
        return build_graph(data, cutoff)
    enough = torch.compiler.is_compiling() or bool((edge_cutoff >= cutoff).all())
    return build_graph(data, None if enough else cutoff)
