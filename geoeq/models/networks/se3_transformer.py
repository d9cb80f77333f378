"""SE(3)-Transformer: equivariant attention with invariant attention weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from e3nn import o3
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import TensorError, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, IrrepsEmbedding, NodeInput
from geoeq.layers.irreps.layout import sphere_irreps
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis
from geoeq.layers.se3_transformer.se3_block import SE3Block
from geoeq.layers.se3_transformer.se3_messages import Activation, RadialSharing
from geoeq.layers.se3_transformer.se3_norm import NormKind
from geoeq.models.heads import GraphScalar, Head, NodeVector
from geoeq.models.model import Model
from geoeq.models.published.se3_transformer_weights import fill, reference_arguments

__all__ = ["SE3Transformer", "edge_inputs_with_basis", "input_irreps"]


class SE3Transformer(Model):
    """Attention with invariant weights, and keys and values from convolutions with spherical harmonics.

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("gap")]``.
        width: number C of channels of each degree.
        layers: number of attention layers, which are followed by a convolution.
        lmax: highest degree of the features.
        attention_heads: number of attention heads.
        channels_div: keys and values have C / channels_div channels.
        irreps_out: irreps of the final convolution's output, for the heads; by default ``(lmax + 1) C`` scalars and C
            vectors.
        norm: nonlinearity after each attention: "bounded", "gate", "norm" (as published) or "none" (see ``SE3Norm``).
        cutoff: cutoff radius in Å; None takes ``data.edge_index``, or connects all atoms of a graph.
        node_inputs: inputs of a node: "element", "charge", "speed", "features" (``data.x``).
        features_irreps: irreps of ``data.x``.
        velocity: use ``data.vel`` as a vector input.
        embed: map the inputs linearly to C channels; False passes ``data.x`` to the first layer unchanged.
        edge_inputs: inputs of the radial networks besides the distance: "square_distance", "charge_product",
            "edge_attr", "bessel".
        edge_attr_width: number of columns of ``data.edge_attr``.
        num_basis: number of Bessel functions of the distance.
        basis_cutoff: radius at which they end, in Å; by default the cutoff. Without either there is no basis.
        distance: use the distance itself as input, as published; by default only if there is no basis.
        hidden: width of the radial networks.
        sharing: which pairs of degrees share a radial network (see ``SE3Messages``).
        radial_norm: use layer norms in the radial networks.
        activation: activation of the radial networks; "relu" as published.
        self_per_edge: see ``SE3Convolution``; True as published.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout), velocities in Å per unit of time.

    Raises:
        InputError: the attention heads do not divide the channels of keys and values, or an option is unknown, or a
            number is out of range.

    Source:
        Fuchs et al., NeurIPS 2020, arXiv:2006.10503. Differs: derivatives by positions are exact (the published code
        computes the harmonics without derivatives); smooth radial networks of a Bessel basis, a smooth nonlinearity,
        and messages that decay smoothly at the cutoff; a linear embedding; self-interaction once per node.
        ``from_reference`` builds NVIDIA's implementation, with its own choices.
    """

    group = "SE(3)"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "qm9": {"width": 32, "layers": 7, "lmax": 3, "attention_heads": 8, "channels_div": 2, "irreps_out": "128x0e"},
        "nbody": {
            "width": 8,
            "layers": 4,
            "lmax": 3,
            "attention_heads": 2,
            "channels_div": 4,
            "node_inputs": ["charge"],
            "edge_inputs": ["charge_product"],
            "velocity": True,
            "irreps_out": "8x0e + 1x1o",
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 32,
        layers: int = 7,
        lmax: int = 3,
        attention_heads: int = 8,
        channels_div: int = 2,
        irreps_out: str | None = None,
        norm: NormKind | Literal["none"] = "bounded",
        cutoff: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        embed: bool = True,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        num_basis: int = 16,
        basis_cutoff: float | None = None,
        distance: bool | None = None,
        hidden: int = 32,
        sharing: RadialSharing | Sequence[RadialSharing] = "all",
        radial_norm: bool = True,
        activation: Activation = "silu",
        self_per_edge: bool = False,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width, attention_heads=attention_heads, channels_div=channels_div, hidden=hidden)
        check_sizes(self, num_basis=num_basis)
        check_sizes(self, least=0, layers=layers, lmax=lmax, edge_attr_width=edge_attr_width)
        check_positive(self, cutoff=cutoff, basis_cutoff=basis_cutoff)
        hidden_irreps = sphere_irreps(lmax, width)
        last = default_out(width, lmax) if irreps_out is None else o3.Irreps(irreps_out)
        node_irreps = input_irreps(width, lmax, features_irreps, velocity) if embed else o3.Irreps(features_irreps)
        edge_inputs, distance = edge_inputs_with_basis(edge_inputs, basis_cutoff or cutoff, distance)
        edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, num_basis, basis_cutoff or cutoff)
        block = SE3Block(
            node_irreps,
            hidden_irreps,
            last,
            layers,
            edge_embedding.width,
            heads=attention_heads,
            channels_div=channels_div,
            norm=norm,
            distance=distance,
            hidden=hidden,
            sharing=sharing,
            radial_norm=radial_norm,
            activation=activation,
            cutoff=cutoff,
            self_per_edge=self_per_edge,
        )
        super().__init__(heads, last, cutoff, lmax=block.lmax, elements=elements)
        self.irreps_out, self.dim_in = last, node_irreps.dim
        self.embedding = None
        if embed:
            self.embedding = IrrepsEmbedding(node_irreps, node_inputs, features_irreps, velocity, self.group)
        self.edge_embedding = edge_embedding
        self.block = block

    @classmethod
    def example(cls) -> Self:
        heads = [GraphScalar("energy"), NodeVector("forces")]
        return cls(heads, 4, 2, lmax=1, attention_heads=2, channels_div=1, cutoff=4.0, num_basis=4, hidden=6)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        graph = dataclasses.replace(graph, edge_attr=self.edge_embedding(data, graph))
        x = self._checked_features(data) if self.embedding is None else self.embedding(data)
        result: Tensor = self.block(x, graph, EdgeBasis(graph, self.cutoff))
        return result

    def _checked_features(self, data: Data) -> Tensor:
        x = getattr(data, "x", None)
        if not isinstance(x, Tensor) or x.flatten(1).shape[1] != self.dim_in:
            columns = "none" if not isinstance(x, Tensor) else str(x.flatten(1).shape[1])
            raise TensorError(f"SE3Transformer: data.x needs {self.dim_in} columns, it has {columns}.")
        return x.flatten(1)

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return NVIDIA's network before pooling, from parameters under their names and its own hyperparameters.

        ``data.x`` holds its node features (one degree after another, in e3nn's layout), ``data.edge_attr`` its
        invariant edge features; ``encode`` returns its output, and there are no heads.

        Args:
            state_dict: the authors' parameters. Their names determine how convolutions were fused.
            hyperparameters: num_layers, num_channels, num_degrees, num_heads, channels_div, fiber_in, fiber_out;
                edge_channels, norm, use_layer_norm.
        """
        model = cls(**reference_arguments(state_dict, hyperparameters))
        fill(model.block, state_dict)
        return model.to(next(iter(state_dict.values())).dtype)


def default_out(width: int, lmax: int) -> o3.Irreps:
    """Return the default output: scalars from all degrees, and vectors if lmax > 0."""
    return o3.Irreps(f"{width * (lmax + 1)}x0e" + (f" + {width}x1o" if lmax else ""))


def input_irreps(width: int, lmax: int, features_irreps: str, velocity: bool) -> o3.Irreps:
    """Return C channels of each degree that the inputs of a node have, and always of scalars."""
    degrees = {0, *(ir.l for _, ir in o3.Irreps(features_irreps)), *([1] if velocity else [])}
    return o3.Irreps([(width, (degree, (-1) ** degree)) for degree in sorted(degrees) if degree <= lmax])


def edge_inputs_with_basis(
    edge_inputs: Sequence[EdgeInput], basis_cutoff: float | None, distance: bool | None
) -> tuple[tuple[EdgeInput, ...], bool]:
    """Add a Bessel basis to the edge inputs if there is a radius at which it ends, or else use the distance itself."""
    inputs = tuple(edge_inputs)
    if distance is None:
        distance = basis_cutoff is None
        if not distance and "bessel" not in inputs:
            inputs = (*inputs, "bessel")
    return inputs, distance
