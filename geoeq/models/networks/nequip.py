"""NequIP: convolutions by tensor products with harmonics, with any widths per degree, and gates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.inputs.embedding import EdgeEmbedding, EdgeInput, IrrepsEmbedding, NodeInput
from geoeq.layers.layer import Group
from geoeq.layers.nequip import NequIPLayer, SelfConnection, features_of_group
from geoeq.layers.radial.bases import BesselBasis
from geoeq.models.heads import GraphScalar, Head, NodeVector
from geoeq.models.model import Model
from geoeq.models.published import nequip_weights, sevennet_weights
from geoeq.models.published.parameters import fill_parameters

__all__ = ["NequIP"]


class NequIP(Model):
    """Neural equivariant interatomic potential: each layer multiplies features by harmonics, and a gate follows.

    Args:
        heads: heads of the predicted quantities, for example ``[GraphScalar("energy", linear=True)]``.
        irreps: irreps of the features after each layer, for example "64x0e + 64x1o + 32x2e": one string for all
            layers, or a list with one for each. Those that no product reaches are left out. For "SE(3)" only degrees
            count.
        irreps_last: irreps after the last layer, if other than those of ``irreps``; scalars suffice for an energy.
        layers: number of layers.
        lmax_edge: highest degree of the harmonics, by default that of ``irreps``.
        group: "SE(3)" includes all products whatever the parity. With "E(3)" features may have both parities.
        self_connection, element_width, neighbors, bias, residual: see ``NequIPLayer``.
        self_connection_first: self-connection of the first layer, by default that of the others. With "none" a single
            atom has the energy of its element, without any contribution of the network.
        embedding_width: number of scalars before the first layer, by default that of the first irreps.
        hidden: widths of the hidden layers of the radial networks.
        cutoff: cutoff radius in Å; None takes ``data.edge_index``, or connects all atoms of a graph.
        basis_cutoff: radius at which the basis and its envelope end, in Å, at most the cutoff, which is the default.
        num_basis: number of Bessel functions.
        learned_basis: whether to learn their frequencies.
        power: power of the polynomial envelope, which multiplies the basis.
        onset: distance in Å at which the envelope begins to decay, for that of X-PLOR instead of the polynomial.
        node_inputs: inputs of a node: "element", "charge", "speed", "features" (``data.x``).
        features_irreps: irreps of ``data.x``, if "features" is among the inputs.
        velocity: use ``data.vel`` as a vector input.
        edge_inputs: inputs of the radial networks besides the basis, see ``EdgeEmbedding``; the envelope multiplies
            them, too.
        edge_attr_width: number of columns of ``data.edge_attr``.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å (or dimensionless throughout), velocities in Å per unit of time.

    Raises:
        InputError: an option is unknown, a number is out of range, neither a cutoff nor a basis_cutoff is given, the
            basis ends beyond the cutoff, or the irreps do not fit the layers.

    Source:
        Batzner et al., Nat. Commun. 13, 2453 (2022), arXiv:2101.03164. Differs: the self-connection is linear by
        default, the published "element" is an option; frequencies of the basis are fixed unless ``learned_basis``;
        nodes and edges may have further inputs. ``from_reference`` reads parameters of nequip and of SevenNet (Park et
        al., JCTC 20, 4857 (2024), arXiv:2402.03789), which has the same form.
    """

    #: "rmd17": both parities up to degree 3 (Batzner et al. 2022, Methods). "7net-0": SevenNet-0, a potential for all
    #: elements (arXiv:2402.03789).
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "rmd17": {
            "irreps": "64x0e + 64x0o + 64x1e + 64x1o + 64x2e + 64x2o + 64x3e + 64x3o",
            "irreps_last": "64x0e",
            "layers": 5,
            "hidden": [64, 64, 64],
            "self_connection": "element",
            "self_connection_first": "none",
            "cutoff": 4.0,
            "learned_basis": True,
        },
        "7net-0": {
            "irreps": "128x0e + 64x1e + 32x2e",
            "irreps_last": "128x0e",
            "layers": 5,
            "group": "SE(3)",
            "neighbors": 36.0,
            "cutoff": 5.0,
            "learned_basis": True,
            "onset": 4.5,
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        irreps: str | Sequence[str] = "64x0e + 64x1o + 64x2e",
        irreps_last: str | None = None,
        layers: int = 4,
        lmax_edge: int | None = None,
        group: Group = "E(3)",
        self_connection: SelfConnection = "linear",
        self_connection_first: SelfConnection | None = None,
        element_width: int = 16,
        embedding_width: int | None = None,
        hidden: Sequence[int] = (64, 64),
        neighbors: float = 16.0,
        bias: bool = False,
        residual: bool = False,
        cutoff: float | None = 5.0,
        basis_cutoff: float | None = None,
        num_basis: int = 8,
        learned_basis: bool = False,
        power: int = 6,
        onset: float | None = None,
        node_inputs: Sequence[NodeInput] = ("element",),
        features_irreps: str = "",
        velocity: bool = False,
        edge_inputs: Sequence[EdgeInput] = (),
        edge_attr_width: int = 0,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, layers=layers, embedding_width=embedding_width, element_width=element_width, hidden=hidden)
        check_sizes(self, num_basis=num_basis)
        check_sizes(self, least=0, lmax_edge=lmax_edge, edge_attr_width=edge_attr_width)
        check_sizes(self, least=2, power=power)
        check_positive(self, neighbors=neighbors, cutoff=cutoff, basis_cutoff=basis_cutoff, onset=onset)
        end = basis_cutoff or cutoff
        if end is None:
            raise InputError("NequIP needs a cutoff or a basis_cutoff: its messages vanish there.")
        if cutoff is not None and end > cutoff:
            raise InputError(
                f"NequIP: basis_cutoff is {end} Å, beyond the cutoff, {cutoff} Å, where messages would jump."
            )
        after = _irreps_of_layers(irreps, irreps_last, layers)
        lmax_edge = max(entry.lmax for entry in after) if lmax_edge is None else lmax_edge
        first = _embedded_irreps(embedding_width or after[0].count("0e"), features_irreps, velocity, group)

        width = num_basis + EdgeEmbedding(edge_inputs, edge_attr_width, num_basis, end).width
        convolutions: list[NequIPLayer] = []
        for number, irreps_out in enumerate(after):
            own = self_connection if number or self_connection_first is None else self_connection_first
            irreps_in = convolutions[-1].irreps_out if convolutions else first
            options = own, element_width, group, neighbors, bias, residual
            convolutions.append(NequIPLayer(irreps_in, irreps_out, width, hidden, lmax_edge, *options))
        # Heads expect the parities of harmonics; those of SE(3) mean nothing.
        given = convolutions[-1].irreps_out
        natural = o3.Irreps([(mul, (ir.l, (-1) ** ir.l)) for mul, ir in given])
        super().__init__(heads, given if group == "E(3)" else natural, cutoff, lmax_edge, elements)
        self.group = group
        self.embedding = IrrepsEmbedding(first, node_inputs, features_irreps, velocity, group)
        self.basis = BesselBasis(num_basis, end, power, learned_basis, onset, prefactor=2 / end)
        self.edge_embedding = EdgeEmbedding(edge_inputs, edge_attr_width, num_basis, end)
        self.layers = nn.ModuleList(convolutions)

    @classmethod
    def example(cls) -> Self:
        heads: list[Head] = [GraphScalar("energy", linear=True, element_scales=True), NodeVector("forces")]
        options: dict[str, Any] = {"self_connection": "element", "element_width": 3, "hidden": [8], "neighbors": 4.0}
        return cls(
            heads, "4x0e + 2x0o + 2x1e + 3x1o + 2x2e", layers=2, cutoff=4.0, num_basis=4, learned_basis=True, **options
        )

    def encode(self, data: Data, graph: Graph) -> Tensor:
        x: Tensor = self.embedding(data)
        attributes: Tensor = self.basis(graph.lengths)  # [E, K]
        further = self.edge_embedding(data, graph)
        if further is not None:
            attributes = torch.cat([attributes, further * self.basis.envelope(graph.lengths)], dim=-1)
        graph = dataclasses.replace(graph, edge_attr=attributes)
        for layer in self.layers:
            x = layer(x, graph)
        return x

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the network of nequip 0.19 or SevenNet (sevenn), from parameters under their names.

        Its output "energy" has its authors' scales and shifts; ``Forces`` adds forces and stress.

        Args:
            hyperparameters: those of ``NequIPGNNModel`` for nequip: num_layers, l_max, parity, num_features,
                radial_mlp_depth, radial_mlp_width, r_max, avg_num_neighbors, and optionally type_names (the keys of
                the energy shifts by default), type_embed_num_features, num_bessels, bessel_trainable,
                polynomial_cutoff_p, readout_mlp_hidden_layers_depth, per_type_energy_scales, per_type_energy_shifts.
                For SevenNet the entries of its configuration that describe the network, and ``modality``, the name of
                the level of theory of a network with several.
        """
        published = sevennet_weights if sevennet_weights.is_sevennet(state_dict) else nequip_weights
        model = cls(**published.reference_arguments(state_dict, hyperparameters))
        values = published.reference_parameters(state_dict, hyperparameters, model)
        model.to(values["basis.frequencies"].dtype)
        for name in ("element_scales", "references"):
            model.heads[0].get_buffer(name).copy_(values.pop(f"heads.0.{name}"))
        fill_parameters(model, values)
        return model


def _irreps_of_layers(irreps: str | Sequence[str], irreps_last: str | None, layers: int) -> list[o3.Irreps]:
    """Return the requested irreps after each layer."""
    each = [irreps] * layers if isinstance(irreps, str) else list(irreps)
    if len(each) != layers:
        raise InputError(
            f"NequIP: irreps has {len(each)} entries for {layers} layers; write one for each, or a string."
        )
    if irreps_last is not None:
        each[-1] = irreps_last
    return [o3.Irreps(entry) for entry in each]


def _embedded_irreps(width: int, features_irreps: str, velocity: bool, group: Group) -> o3.Irreps:
    """Return the irreps before the first layer: as many copies of each irrep of the inputs as there are scalars."""
    if width == 0:
        raise InputError("NequIP: the irreps of the first layer have no scalars (0e); give embedding_width.")
    inputs = features_of_group(o3.Irreps(features_irreps) + o3.Irreps("1o" if velocity else ""), group)
    others = dict.fromkeys(ir for _, ir in inputs if ir != o3.Irrep("0e"))
    return o3.Irreps([(width, "0e"), *((width, ir) for ir in others)])
