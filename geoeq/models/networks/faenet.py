"""FAENet: a network without built-in symmetry, meant for frame averaging."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn.functional import silu
from torch_geometric.data import Data

from geoeq.errors import InputError, check_name, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.faenet import FAENetEdges, FAENetLayer, Message, NodeNorm
from geoeq.layers.inputs.periodic_table import AtomEmbedding
from geoeq.layers.layer import Group
from geoeq.layers.radial.bases import GaussianBasis
from geoeq.models.heads.head import Head
from geoeq.models.model import Model
from geoeq.models.networks.faenet_heads import DecodedVector, EveryLayerScalar
from geoeq.models.published.faenet_weights import reference_arguments, reference_names, reference_state
from geoeq.models.published.parameters import load_parameters

__all__ = ["FAENet", "Skip"]

Skip = Literal["layers", "merged", "none"]


class FAENet(Model):
    """FAENet without its frames: messages read the components of edge vectors, at the cost of a plain network.

    **Not equivariant**: its group is that of translations, "T(3)". An energy depends on the orientation of the
    structure, and directly predicted forces do not rotate with it. Symmetry has to come from outside: from a wrapper
    that averages over frames, as published, or (partly) from rotating the training set at random.

    Args:
        heads: heads of the predicted quantities, for example ``[EveryLayerScalar("energy"), DecodedVector("forces")]``.
            Forces may also be the derivative of the energy. With other heads ``skip="none"`` or "merged" is the better
            choice.
        width: number C of channels.
        filters: number F of filters of the edges; F is C for "simple" messages.
        layers: number of message-passing layers.
        message, norm, second: see ``FAENetLayer``.
        skip: features for the heads: those of all layers concatenated, (layers + 1) C ("layers"), a linear map of them
            with SiLU, C ("merged"), or those of the last layer, C ("none").
        cutoff: cutoff radius in Å; messages decay smoothly to zero there. None takes ``data.edge_index``, or connects
            all atoms of a graph; messages are then as published.
        num_basis: number of Gaussians of the distance.
        basis_cutoff: radius at which the Gaussians end, in Å; by default the cutoff.
        tag_width, table_width, properties, property_width: see ``AtomEmbedding``; with a tag_width, ``data.tags`` [N]
            marks each atom as 0 (below the surface), 1 (surface) or 2 (adsorbate).
        second_embedding: add a second linear map in the embeddings of atoms and edges.
        elements: atomic numbers that the model accepts; None for any.

    Shapes:
        Positions in Å. Features are scalars, ``Cx0e`` of each layer.

    Raises:
        InputError: an option is unknown, or neither a cutoff nor a basis_cutoff is given, or a number is out of range.

    Source:
        Duval et al. 2023, arXiv:2305.05577. Differs: norms are taken of each atom; the published ones run over the
        whole batch, so a prediction depends on the rest of the batch (``norm="batch"``); with a cutoff, messages decay
        smoothly to zero there, and all neighbours count, not the nearest 30 or 40. Presets are the published
        configurations, with norms over each graph and without their table of physical properties ("oc20_is2re" and
        "qm7x" have one).
    """

    group: Group = "T(3)"

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "oc20_is2re": {
            "width": 384,
            "filters": 480,
            "layers": 5,
            "num_basis": 104,
            "cutoff": 6.0,
            "tag_width": 64,
            "table_width": 64,
            "message": "base",
            "second": True,
            "second_embedding": False,
            "norm": "graph",
        },
        "oc20_s2ef": {
            "width": 256,
            "filters": 480,
            "layers": 7,
            "num_basis": 136,
            "cutoff": 6.0,
            "tag_width": 32,
            "table_width": 64,
            "second": True,
            "second_embedding": False,
            "skip": "none",
            "norm": "graph",
        },
        "qm9": {
            "width": 400,
            "filters": 480,
            "layers": 5,
            "num_basis": 100,
            "cutoff": 6.0,
            "table_width": 32,
            "second": True,
            "skip": "none",
            "norm": "graph",
        },
        "qm7x": {
            "width": 500,
            "filters": 400,
            "layers": 5,
            "num_basis": 50,
            "cutoff": 5.0,
            "table_width": 32,
            "norm": "none",
            "second": True,
        },
    }

    def __init__(
        self,
        heads: Sequence[Head],
        width: int = 128,
        filters: int = 128,
        layers: int = 4,
        message: Message = "updownscale_base",
        norm: NodeNorm = "layer",
        second: bool = False,
        skip: Skip = "layers",
        cutoff: float | None = None,
        num_basis: int = 50,
        basis_cutoff: float | None = None,
        tag_width: int = 0,
        table_width: int = 0,
        properties: Sequence[Sequence[float]] = (),
        property_width: int = 0,
        second_embedding: bool = True,
        elements: Sequence[int] | None = None,
    ) -> None:
        check_sizes(self, width=width, layers=layers, num_basis=num_basis)
        check_sizes(self, least=2, filters=filters)  # half of them see vectors, half distances
        check_sizes(self, least=0, tag_width=tag_width, table_width=table_width, property_width=property_width)
        check_positive(self, basis_cutoff=basis_cutoff)
        check_name("skip", skip, get_args(Skip))
        end = cutoff if basis_cutoff is None else basis_cutoff
        if end is None:
            raise InputError("FAENet without a cutoff needs basis_cutoff: the distance at which its Gaussians end.")
        count = layers + 1 if skip == "layers" else 1
        super().__init__(heads, o3.Irreps([(width, "0e")] * count), cutoff, elements=elements)
        self.skip = skip
        self.embedding = AtomEmbedding(width, tag_width, table_width, properties, property_width, second_embedding)
        self.edges = FAENetEdges(filters, GaussianBasis(num_basis, end), second_embedding)
        self.layers = nn.ModuleList(FAENetLayer(width, filters, message, norm, second, cutoff) for _ in range(layers))
        self.merge = nn.Linear((layers + 1) * width, width) if skip == "merged" else None

    @classmethod
    def example(cls) -> Self:
        heads = [EveryLayerScalar("energy"), DecodedVector("forces")]
        return cls(heads, 8, 8, layers=2, norm="layer", cutoff=4.0, num_basis=8, table_width=2)

    def encode(self, data: Data, graph: Graph) -> Tensor:
        graph = dataclasses.replace(graph, edge_attr=self.edges(graph))  # [E, F]
        x: list[Tensor] = [self.embedding(data)]  # [N, C]
        for layer in self.layers:
            x.append(layer(x[-1], graph))
        if self.skip == "none":
            return x[-1]
        every = torch.cat(x, dim=-1)  # [N, (layers + 1) C]
        return every if self.merge is None else silu(self.merge(every))

    @classmethod
    def from_reference(cls, state_dict: Mapping[str, Tensor], **hyperparameters: Any) -> Self:
        """Return the authors' network, from parameters under their names and its own hyperparameters.

        Edges are those of ``data.edge_index``. Outputs are "energy" and, if they are predicted directly, "forces".
        Norms run over the batch, as published. Elements that the published tables do not contain (cerium to lutetium,
        and those after polonium) are refused.

        Args:
            hyperparameters: hidden_channels, num_filters, num_interactions, num_gaussians, cutoff, and the other
                arguments of the published class; those of the neighbour search are accepted and ignored.
        """
        arguments = reference_arguments(state_dict, hyperparameters)
        model = cls(**arguments)
        state = reference_state(state_dict, arguments)
        names = reference_names(arguments, hyperparameters.get("force_decoder_type", "mlp"))
        running = [name for name, _ in model.named_buffers() if ".running_" in name or name.endswith("_tracked")]
        load_parameters(model, state, names, running)
        return model.to(state["embed_block.emb.weight"].dtype)
