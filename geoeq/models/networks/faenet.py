"""FAENet: a network without symmetry of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn.functional import silu
from torch_geometric.data import Data

from geoeq.errors import InputError, unknown_name
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
    """FAENet without its frames: messages read the vectors of edges as they are, at the price of a plain network.

    **Not equivariant**: its group is that of translations, "T(3)". An energy depends on how the structure is turned,
    and directly predicted forces do not turn with it. Symmetry is to come from outside: from a wrapper that
    averages over frames, as published, or (in part) from turning the training set at random.

    Args:
        heads: what is predicted, for example ``[EveryLayerScalar("energy"), DecodedVector("forces")]``. Forces are as
            well the derivative of the energy. With other heads ``skip="none"`` or "merged" is the better choice.
        width: number C of channels.
        filters: number F of filters, which see the edges; of "base" messages C, of "simple" F is C.
        layers: number of rounds of messages.
        message, norm, second: of ``FAENetLayer``.
        skip: the features are those of every layer side by side, (layers + 1) C ("layers"), one linear map of them with
            SiLU, C ("merged"), or those of the last layer, C ("none").
        cutoff: in Å; messages fall smoothly to zero there. None takes ``data.edge_index``, or connects all atoms of a
            graph; messages are then as published.
        num_basis: number of Gaussians of the distance.
        basis_cutoff: where they end, in Å; by default the cutoff.
        tag_width, table_width, properties, property_width: of ``AtomEmbedding``; with a tag_width ``data.tags`` [N]
            says of each atom 0 below the surface, 1 at the surface, 2 of the adsorbate.
        second_embedding: a second linear map in the embeddings of atoms and edges.
        elements: atomic numbers that the model knows; None for any.

    Shapes:
        Positions in Å. Features are scalars, ``Cx0e`` of each layer.

    Raises:
        InputError: an option is none of those above, or neither a cutoff nor a basis_cutoff is given.

    Source:
        Duval et al. 2023, arXiv:2305.05577. Differs: norms are over each graph; the published ones are over the whole
        batch, so that a prediction changes with what else is in it (``norm="batch"``); with a cutoff, messages fall
        smoothly to zero there, and all neighbours count, not the nearest 30 or 40. Presets are the published
        configurations without their table of physical properties ("oc20_is2re" and "qm7x" have one).
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
        norm: NodeNorm = "graph",
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
        if skip not in get_args(Skip):
            raise InputError(unknown_name("skip", skip, get_args(Skip)))
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
        """The authors' network, from its parameters under their names and its own hyperparameters.

        Edges are those of ``data.edge_index``. Outputs are "energy" and, where they are predicted directly, "forces".
        Norms are over the batch, as published. Elements for which the published tables have no row (cerium to
        lutetium, and those after polonium) are refused.

        Args:
            state_dict: the authors' parameters and buffers.
            hyperparameters: hidden_channels, num_filters, num_interactions, num_gaussians, cutoff, and what else the
                published class takes; what concerns the search for edges is accepted and not used.

        Raises:
            CheckpointError: a hyperparameter is unknown, missing or not supported, or a parameter is missing, left
                over or of another shape.
        """
        arguments = reference_arguments(state_dict, hyperparameters)
        model = cls(**arguments)
        state = reference_state(state_dict, arguments)
        names = reference_names(arguments, hyperparameters.get("force_decoder_type", "mlp"))
        running = [name for name, _ in model.named_buffers() if ".running_" in name or name.endswith("_tracked")]
        load_parameters(model, state, names, running)
        return model.to(state["embed_block.emb.weight"].dtype)
