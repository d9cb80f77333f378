"""The Model contract: PyG Data or Batch to a dict of named outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.checks import check_edges, check_inputs
from geoeq.errors import FieldError, InputError, TensorError, unknown_name
from geoeq.fields import Field, field
from geoeq.graph import Graph, build_graph, in_dtype
from geoeq.layers.layer import Group
from geoeq.models.config import Configurable
from geoeq.models.heads.head import Head
from geoeq.models.training_set import TrainingSet, in_parts, known_elements

__all__ = ["Model"]


class Model(Configurable, nn.Module, ABC):
    """Structures to named outputs: an embedding and layers (``encode``), then heads.

    Args:
        heads: what is predicted; each is bound to the features that the network gives.
        irreps: of those features.
        cutoff: of the graph, in Å; None takes ``data.edge_index`` or connects all atoms of a graph.
        lmax: of the harmonics in the graph.
        elements: atomic numbers that the model knows; None for any. Set by ``fit_heads``.

    Raises:
        FieldError: two heads give the same name, or a name is not in ``geoeq.fields``.
        InputError: a head does not keep the symmetry of the model.

    Attributes:
        group: "SE(3)" where reflections are not respected. Heads then see the features with the parity of
            harmonics (0e, 1o, 2e ..), whatever the network calls them. "T(3)" where rotations are not respected
            either: outputs are those of the orientation in which the structure is given.
        PRESETS: name -> the arguments of a published network, for ``preset``.
    """

    group: Group = "E(3)"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(
        self,
        heads: Sequence[Head],
        irreps: o3.Irreps,
        cutoff: float | None = None,
        lmax: int = 0,
        elements: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.cutoff, self.lmax = cutoff, lmax
        self.elements = None if elements is None else tuple(sorted({int(number) for number in elements}))
        names = [name for head in heads for name in head.names]
        for name in names:
            field(name)
            if names.count(name) > 1:
                raise FieldError(f"Two heads give '{name}'; a name can be given once.")
        for head in heads:
            if head.group == "T(3)" and self.group != "T(3)":
                raise InputError(
                    f"{type(head).__name__} does not turn with the input, and {type(self).__name__} does: give a head "
                    f"that respects rotations, such as those of geoeq.models.heads."
                )
        if self.group == "SE(3)":
            irreps = o3.Irreps([(mul, (ir.l, (-1) ** ir.l)) for mul, ir in irreps])
        for head in heads:
            head.bind(irreps)
        self.heads = nn.ModuleList(heads)

    def prepare(self, data: Data, graph: Graph) -> Graph:
        """The graph that ``encode`` and the heads see: with edge attributes, frames, and what else they share."""
        return graph

    @abstractmethod
    def encode(self, data: Data, graph: Graph) -> Tensor:
        """Node features [N, irreps.dim] of a structure."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, for tests and documentation."""

    @classmethod
    def preset(cls, name: str, heads: Sequence[Head], **changes: Any) -> Self:
        """The network with the hyperparameters that its paper took for a task.

        Args:
            name: one of ``PRESETS``.
            heads: what is predicted.
            changes: arguments other than those of the paper.

        Raises:
            InputError: there is no such preset.
        """
        if name not in cls.PRESETS:
            raise InputError(f"{cls.__name__}: {unknown_name('preset', name, cls.PRESETS)}")
        return cls(heads, **(cls.PRESETS[name] | changes))

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """The network with its authors' own parameters, under their names; only where they published code."""
        raise NotImplementedError(f"{cls.__name__} has no published implementation to load parameters from.")

    @property
    def fields(self) -> dict[str, Field]:
        """Name and field of every output."""
        return {name: field(name) for head in self.heads for name in head.names}  # type: ignore[union-attr]

    @property
    def title(self) -> str:
        """What tables call it."""
        return type(self).__name__

    @property
    def conservative(self) -> bool:
        """Whether its forces are minus the derivative of its energy; not if a head gives them directly."""
        return "forces" not in self.fields

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Losses of its own, beside those of the targets: name -> function of a batch, to a scalar [] in no unit.

        A recipe asks for them by name, with a weight, in ``loss.auxiliary``; none is computed that nobody asks for.
        """
        return {}

    def extra_metrics(self) -> dict[str, float]:
        """Numbers of its own for the log of a run, by name, as they are after an epoch; the same names each time."""
        return {}

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Outputs by name.

        Shapes:
            A graph-level scalar is [G], a vector [G, 3]; a node-level scalar [N], a vector [N, 3].

        Positions may have more digits than the model (float64 for one in float32): edges are then found and measured
        with all of them.

        Raises:
            InputError: the structure cannot be what was meant (see ``geoeq.checks``).
            TensorError: positions have fewer digits than the model.
        """
        check_inputs(data, elements=self.elements, cutoff=self.cutoff, coincident=self.cutoff is None)
        dtype = next(self.parameters()).dtype
        given = data.pos.dtype
        if given not in (dtype, torch.float64):
            raise TensorError(f"Positions are {given} and the model is {dtype}: convert one of them.")
        with torch.autocast(data.pos.device.type, enabled=False):  # geometry is never rounded
            graph = build_graph(data, self.cutoff, self.lmax)
            if self.cutoff is not None:
                check_edges(graph)
            if given != dtype:
                graph, data = graph.to(dtype), in_dtype(data, dtype)
            graph = self.prepare(data, graph)
        x = self.encode(data, graph)
        with torch.autocast(data.pos.device.type, enabled=False):
            outputs: dict[str, Tensor] = {}
            for head in self.heads:
                outputs.update(head(x.to(dtype), graph))
                if head.last_layer_asked:
                    outputs["last_layer"] = head.last_features(x.to(dtype), graph)  # type: ignore[operator]
        return outputs

    def set_elements(self, elements: Sequence[int]) -> None:
        """Accept these atomic numbers from now on, and refuse others."""
        self.elements = tuple(sorted({int(number) for number in elements}))
        if "elements" in self.arguments:  # a network of one's own need not have the argument
            self.arguments["elements"] = list(self.elements)

    def fit_heads(self, data: TrainingSet, elements: Sequence[int] | None = None) -> None:
        """Compute every head's element references, shift and scale from the training set, and store them.

        Args:
            data: the whole training set, as one Batch, or as batches that can be gone through again and again (a list,
                a loader), of which one at a time is in memory: ``z`` where there are elements, ``batch``, and the
                targets.
            elements: atomic numbers to accept from now on; by default those of ``data``.

        Raises:
            InputError: the batches can be gone through only once.
        """
        parts = in_parts(data)
        numbers = elements or known_elements(parts)
        if numbers:
            self.set_elements(numbers)
        for head in self.heads:
            head.fit(parts)  # type: ignore[operator]
