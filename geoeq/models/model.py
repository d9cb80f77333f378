"""The Model contract: PyG Data or Batch to a dict of named outputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.checks import LAST_ELEMENT, check_edges, check_inputs
from geoeq.errors import FieldError, InputError, TensorError, check_positive, check_sizes, unknown_name
from geoeq.fields import Field, field
from geoeq.graph import Graph, build_graph, in_dtype
from geoeq.layers.layer import Group, WithExample
from geoeq.models.config import Configurable
from geoeq.models.heads.head import Head
from geoeq.models.training_set import TrainingSet, in_parts, known_elements

__all__ = ["Model"]


class Model(Configurable, nn.Module, WithExample):
    """Base class of models: an embedding and layers (``encode``) followed by heads, from structures to named outputs.

    Args:
        heads: heads of the predicted quantities; each is bound to the features of the network.
        irreps: irreps of these features.
        cutoff: cutoff radius of the graph in Å; None takes ``data.edge_index`` or connects all atoms of a graph.
        lmax: highest degree of the spherical harmonics in the graph.
        elements: atomic numbers that the model accepts; None for any. Set by ``fit_heads``.

    Raises:
        FieldError: two heads predict the same output, or an output is not in ``geoeq.fields``.
        InputError: a head breaks the symmetry of the model, or a number is out of range.

    Attributes:
        group: symmetry of the model. For "SE(3)" reflections are not respected, and heads see the features with the
            parity of harmonics (0e, 1o, 2e, ...), whatever the network calls them. For "T(3)" rotations are not
            respected either: outputs depend on the orientation of the structure.
        PRESETS: name -> arguments of a published network, for ``preset``.
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
        check_positive(self, cutoff=cutoff)
        check_sizes(self, least=0, lmax=lmax)
        self.cutoff, self.lmax = cutoff, lmax
        self.elements = None if elements is None else _checked_elements(elements)
        names = [name for head in heads for name in head.names]
        for name in names:
            field(name)
            if names.count(name) > 1:
                raise FieldError(f"Two heads predict '{name}'; leave one of them out.")
        for head in heads:
            if head.group == "T(3)" and self.group != "T(3)":
                raise InputError(
                    f"The outputs of {type(head).__name__} do not rotate with the input, as those of "
                    f"{type(self).__name__} have to: use a head that respects rotations, "
                    "such as those of geoeq.models.heads."
                )
        if self.group == "SE(3)":
            irreps = o3.Irreps([(mul, (ir.l, (-1) ** ir.l)) for mul, ir in irreps])
        for head in heads:
            head.bind(irreps)
        self.heads = nn.ModuleList(heads)

    def prepare(self, data: Data, graph: Graph) -> Graph:
        """Return the graph for ``encode`` and the heads, with what they share, such as edge attributes and frames."""
        return graph

    @abstractmethod
    def encode(self, data: Data, graph: Graph) -> Tensor:
        """Return the node features [N, irreps.dim] of a batch."""

    @classmethod
    def preset(cls, name: str, heads: Sequence[Head], **changes: Any) -> Self:
        """Return the network with the hyperparameters of its paper for a task.

        Args:
            name: one of ``PRESETS``.
            heads: heads of the predicted quantities.
            changes: arguments that replace those of the paper.

        Raises:
            InputError: the preset does not exist.
        """
        if name not in cls.PRESETS:
            raise InputError(f"{cls.__name__}: {unknown_name('preset', name, cls.PRESETS)}")
        return cls(heads, **(cls.PRESETS[name] | changes))

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the network with its authors' parameters under their names, for networks with published code.

        Args:
            state_dict: the authors' parameters and buffers under their names.
            hyperparameters: the authors' hyperparameters; each network lists those that it takes.

        Raises:
            CheckpointError: a hyperparameter is unknown, missing or not supported, or a parameter is missing, left over
                or of another shape.
            NotImplementedError: there is no published code.
        """
        raise NotImplementedError(f"{cls.__name__} has no published implementation to load parameters from.")

    @property
    def fields(self) -> dict[str, Field]:
        """Names and fields of the outputs."""
        return {name: field(name) for head in self.heads for name in head.names}  # type: ignore[union-attr]

    @property
    def title(self) -> str:
        """Name of the model in tables."""
        return type(self).__name__

    @property
    def conservative(self) -> bool:
        """Whether forces are minus the derivative of the energy, which is not so if a head predicts them directly."""
        return "forces" not in self.fields

    @property
    def inexact_derivatives(self) -> str:
        """Name of the option that makes derivatives by the positions inexact; empty if they are exact."""
        return ""

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Losses of the model besides those of the targets: name -> function from a batch to a unitless scalar [].

        A recipe selects them by name, with a weight, in ``loss.auxiliary``; the others are not computed.
        """
        return {}

    def extra_metrics(self) -> dict[str, float]:
        """Return numbers for the log of a run after an epoch, by name; the names never change."""
        return {}

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return the outputs by name.

        Positions may have a higher precision than the model (float64 for a model in float32); edges are then found and
        measured in float64.

        Shapes:
            A graph-level scalar is [G], a vector [G, 3]; a node-level scalar [N], a vector [N, 3].

        Raises:
            InputError: a structure is invalid (see ``geoeq.checks``).
            TensorError: positions have a lower precision than the model.
        """
        check_inputs(data, elements=self.elements, cutoff=self.cutoff, coincident=self.cutoff is None)
        dtype = next(self.parameters()).dtype
        pos_dtype = data.pos.dtype
        if pos_dtype not in (dtype, torch.float64):
            raise TensorError(f"Positions are {pos_dtype} and the model is {dtype}: convert one of them.")
        with torch.autocast(data.pos.device.type, enabled=False):  # geometry is never rounded
            graph = build_graph(data, self.cutoff, self.lmax)
            if self.cutoff is not None:
                check_edges(graph)
            if pos_dtype != dtype:
                graph, data = graph.to(dtype), in_dtype(data, dtype)
            graph = self.prepare(data, graph)
        x = self.encode(data, graph)
        with torch.autocast(data.pos.device.type, enabled=False):
            outputs: dict[str, Tensor] = {}
            for head in self.heads:
                outputs.update(head(x.to(dtype), graph))
                if head.with_last_layer:
                    outputs["last_layer"] = head.last_features(x.to(dtype), graph)  # type: ignore[operator]
        return outputs

    def set_elements(self, elements: Sequence[int]) -> None:
        """Accept only these atomic numbers from now on."""
        self.elements = _checked_elements(elements)
        if "elements" in self.arguments:  # a user's network need not have the argument
            self.arguments["elements"] = list(self.elements)

    def fit_heads(self, data: TrainingSet, elements: Sequence[int] | None = None) -> None:
        """Fit the element references, shift and scale of every head to the training set.

        Args:
            data: the whole training set, as one Batch, or as batches that can be iterated repeatedly (a list, a loader)
                and of which only one is in memory at a time: ``z`` if there are elements, ``batch``, and the targets.
            elements: atomic numbers to accept from now on; by default those of ``data``.

        Raises:
            InputError: the batches can be iterated only once.
        """
        parts = in_parts(data)
        numbers = elements or known_elements(parts)
        if numbers:
            self.set_elements(numbers)
        for head in self.heads:
            head.fit(parts)  # type: ignore[operator]


def _checked_elements(elements: Any) -> tuple[int, ...]:
    """Return the different atomic numbers in ascending order."""
    numbers: list[Any] = list(elements) if isinstance(elements, Iterable) else [None]
    known = set(range(1, LAST_ELEMENT + 1))
    if (
        any(isinstance(number, bool) or not isinstance(number, int | np.integer) for number in numbers)
        or not {*numbers} <= known
    ):
        raise InputError(f"'elements' must be a list of atomic numbers from 1 to {LAST_ELEMENT}, not {elements!r:.60}.")
    return tuple(sorted({int(number) for number in numbers}))
