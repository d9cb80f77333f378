"""Equiformer: equivariant graph attention transformer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import CheckpointError, InputError, check_positive, check_rates, check_sizes, unknown_name
from geoeq.graph import Graph
from geoeq.layers.equiformer import EquiformerBlock, EquiformerNorm, EquivariantGraphAttention, NormKind
from geoeq.layers.inputs.degree_embedding import DegreeEmbedding
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, IrrepsEmbedding, NodeInput
from geoeq.layers.irreps.dropout import EquivariantDropout
from geoeq.layers.layer import RadialFunction
from geoeq.layers.products.tensor_paths import harmonics_group
from geoeq.layers.radial.bases import BesselBasis, ExpNormalBasis, LearnedGaussianBasis
from geoeq.models.heads import GraphScalar, Head, NodeVector
from geoeq.models.model import Model
from geoeq.models.published.equiformer_parameters import reference_parameters
from geoeq.models.published.equiformer_weights import QM9_ATOMS, QM9_DEGREE, reference_arguments
from geoeq.models.published.parameters import fill_parameters

__all__ = ["Equiformer"]

BasisKind = Literal["gaussian", "bessel", "expnormal"]


class Equiformer(Model):
    """Transformer of irreps features: attention by invariants, messages by depthwise tensor products.

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("gap")]``.
        irreps: irreps of the features in all blocks, scalars (0e) first.
        irreps_harmonics: irreps of the spherical harmonics of the edges. With "1e" instead of "1o", and even parities
            throughout, the group is SE(3), as in most of the published networks.
        irreps_head: irreps of the values of one attention head.
        num_heads: number of attention heads.
        irreps_middle: irreps inside the feed-forward networks.
        irreps_out: irreps of the last block's output, for the heads: scalars first, then vectors, if any.
        irreps_message: irreps of messages before the tensor product; None takes those of the features.
        layers: number of blocks.
        nonlinear: pass values through a gate and a second tensor product.
        rescale_degree: multiply the attention by the number of neighbours.
        norm: kind of normalization: "rms", all degrees of an atom together, or as published "layer", "graph" or
            "instance", which multiply rounding errors in symmetric structures (see ``EquivariantLayerNorm``).
        basis: radial basis: "gaussian" (learned centres and widths), "bessel" (learned frequencies) or "expnormal".
        num_basis: number of radial basis functions.
        radial_hidden: hidden widths of the radial networks.
        average_degree: mean number of neighbours in the training set.
        attention_dropout, dropout, out_dropout, stochastic_depth: dropout rates of attention weights, of the outputs of
            attention and feed-forward networks, of the last features, and of whole branches.
        cutoff: cutoff radius in Å; None takes ``data.edge_index``, or connects all atoms of a graph.
        basis_cutoff: length to which the basis is scaled, in Å; None takes the cutoff.
        smooth: let attention and sums over neighbours decay smoothly to zero at the cutoff; False as published.
        node_inputs, features_irreps, velocity: inputs of a node, see ``IrrepsEmbedding``.
        edge_inputs, edge_attr_width: inputs of an edge besides its length, see ``EdgeEmbedding``.
        elements: atomic numbers that the model accepts; None for any.

    Raises:
        InputError: an option is unknown, no length is given for the basis, or some irreps have no path to them, or a
            number is out of range.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990. Differs: smooth at the cutoff; one norm for all degrees of an
        atom; one table for all elements; the head is geoeq's, with references and scale fitted to the training set.
        ``from_reference`` builds the published QM9 network (and the one for MD17, without attention head), which is not
        smooth and has the norm "layer".
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "qm9": {"cutoff": 5.0, "attention_dropout": 0.2},
        "qm9_linear": {"cutoff": 5.0, "attention_dropout": 0.2, "nonlinear": False},
        "qm9_e3": {
            "cutoff": 5.0,
            "attention_dropout": 0.2,
            "irreps": "128x0e+32x0o+32x1e+32x1o+16x2e+16x2o",
            "irreps_harmonics": "1x0e+1x1o+1x2e",
            "irreps_head": "32x0e+8x0o+8x1e+8x1o+4x2e+4x2o",
            "irreps_middle": "384x0e+96x0o+96x1e+96x1o+48x2e+48x2o",
        },
        "md17": {"cutoff": 5.0, "basis": "expnormal", "num_basis": 32},
        "md17_l3": {
            "cutoff": 5.0,
            "basis": "expnormal",
            "num_basis": 32,
            "irreps": "128x0e+64x1e+64x2e+32x3e",
            "irreps_harmonics": "1x0e+1x1e+1x2e+1x3e",
            "irreps_head": "32x0e+16x1e+16x2e+8x3e",
            "irreps_middle": "384x0e+192x1e+192x2e+96x3e",
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        irreps: str = "128x0e+64x1e+32x2e",
        irreps_harmonics: str = "1x0e+1x1e+1x2e",
        irreps_head: str = "32x0e+16x1e+8x2e",
        num_heads: int = 4,
        irreps_middle: str = "384x0e+192x1e+96x2e",
        irreps_out: str = "512x0e",
        irreps_message: str | None = None,
        layers: int = 6,
        nonlinear: bool = True,
        rescale_degree: bool = False,
        norm: NormKind = "rms",
        basis: BasisKind = "gaussian",
        num_basis: int = 128,
        radial_hidden: Sequence[int] = (64, 64),
        average_degree: float = QM9_DEGREE,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        out_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        cutoff: float | None = 5.0,
        basis_cutoff: float | None = None,
        smooth: bool = True,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, num_heads=num_heads, layers=layers, num_basis=num_basis, radial_hidden=radial_hidden)
        check_sizes(self, least=0, edge_attr_width=edge_attr_width)
        check_positive(self, average_degree=average_degree, basis_cutoff=basis_cutoff)
        check_rates(self, attention_dropout=attention_dropout, dropout=dropout, out_dropout=out_dropout)
        check_rates(self, stochastic_depth=stochastic_depth)
        harmonics, out = o3.Irreps(irreps_harmonics), _checked_order(o3.Irreps(irreps_out))
        self.group = harmonics_group(harmonics)
        super().__init__(heads, out, cutoff, harmonics.lmax, elements)
        scale = basis_cutoff if basis_cutoff is not None else cutoff
        if scale is None:
            raise InputError(
                "Equiformer without a cutoff needs a basis_cutoff, the length to which its basis is scaled."
            )
        self.irreps_harmonics = harmonics
        decay = cutoff if smooth else None
        self.embedding = IrrepsEmbedding(irreps, node_inputs, features_irreps, velocity, self.group)
        self.basis = _basis(basis, num_basis, scale)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, cutoff=scale)
        width = num_basis + self.edge_embedding.width
        self.degree = DegreeEmbedding(irreps, harmonics, width, radial_hidden, average_degree, decay)
        sizes = irreps, harmonics, irreps_head, num_heads, width, radial_hidden, irreps_message
        options = nonlinear, rescale_degree, attention_dropout, dropout, decay
        self.blocks = nn.ModuleList(
            EquiformerBlock(
                EquivariantGraphAttention(*sizes, *options),
                irreps_middle,
                irreps_out if number == layers - 1 else irreps,
                norm,
                dropout,
                stochastic_depth,
            )
            for number in range(layers)
        )
        self.norm = EquiformerNorm(out, norm)
        self.out_dropout = EquivariantDropout(out, out_dropout)

    @classmethod
    def example(cls) -> Self:
        return cls(
            [GraphScalar("energy"), NodeVector("forces")],
            irreps="6x0e+3x1o+2x2e",
            irreps_harmonics="1x0e+1x1o+1x2e",
            irreps_head="2x0e+1x1o+1x2e",
            num_heads=2,
            irreps_middle="6x0e+3x1o+2x2e",
            irreps_out="6x0e+3x1o",
            layers=1,
            num_basis=6,
            radial_hidden=(6,),
            average_degree=4.0,
            cutoff=4.0,
        )

    def encode(self, data: Data, graph: Graph) -> Tensor:
        parts = [self.basis(graph.lengths), self.edge_embedding(data, graph)]
        edge_attr = torch.cat([part for part in parts if part is not None], dim=-1)  # [E, A]
        graph = dataclasses.replace(graph, edge_attr=edge_attr)
        x = self.degree(self.embedding(data), graph)  # [N, irreps.dim]
        for block in self.blocks:
            x = block(x, graph)
        result: Tensor = self.out_dropout(self.norm(x, graph))
        return result

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the authors' QM9 network, from parameters under their names and its own hyperparameters.

        Weights trained with e3nn before 0.5 have other signs, which are derived from the buffers of the state dict or,
        without them, from the rule of e3nn 0.4. The output is called "energy".

        Args:
            hyperparameters: the arguments of their ``GraphAttentionTransformer``.
        """
        arguments = reference_arguments(hyperparameters, state_dict)
        try:
            model = cls(**arguments).to(next(iter(state_dict.values())).dtype)
        except InputError as error:  # their network would have features that stay zero
            raise CheckpointError(f"Equiformer.from_reference: {error}") from error
        widths = [hyperparameters["number_of_basis"], *hyperparameters["fc_neurons"]]
        fill_parameters(model, reference_parameters(model, state_dict, widths))
        head = model.heads[0]
        if isinstance(head, GraphScalar):
            head.scale.fill_((hyperparameters.get("scale") or 1.0) * QM9_ATOMS**-0.5)
        return model


def _basis(kind: BasisKind, width: int, scale: float) -> RadialFunction:
    if kind == "gaussian":
        return LearnedGaussianBasis(width, scale)
    if kind == "bessel":
        return BesselBasis(width, scale, power=5, learned=True)
    if kind == "expnormal":
        return ExpNormalBasis(width, scale)
    raise InputError(unknown_name("basis", kind, get_args(BasisKind)))


def _checked_order(irreps: o3.Irreps) -> o3.Irreps:
    """Check that irreps are ordered as heads need them: scalars first, then vectors."""
    degrees = [ir.l for _, ir in irreps]
    if not degrees or irreps[0].ir != o3.Irrep("0e") or (1 in degrees and degrees.index(1) != 1):
        raise InputError(f"irreps_out is {irreps}; heads need scalars (0e) first, then vectors.")
    return irreps
