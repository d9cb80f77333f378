"""Embedding of atoms by element, period, group, tag and physical properties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError, check_sizes
from geoeq.fields import NUM_ELEMENTS

__all__ = ["NOBLE_GASES", "NO_GROUP", "AtomEmbedding", "group_of", "period_of"]

NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)
#: Group number of the lanthanides from cerium and the actinides from thorium, which belong to no group.
NO_GROUP = 19
NUM_TAGS = 3


def period_of(number: int) -> int:
    """Return the period of an element, 1 to 7."""
    return 1 + sum(number > last for last in NOBLE_GASES)


def group_of(number: int) -> int:
    """Return the group of an element, 1 to 18; lanthanum and actinium have group 3, those after them ``NO_GROUP``."""
    last = NOBLE_GASES[period_of(number) - 1]
    first = next((gas for gas in reversed(NOBLE_GASES) if gas < number), 0)
    from_start, from_end = number - first, last - number
    if (from_start <= 2 and number != 2) or (from_start == 3 and from_end > 14):
        return from_start
    return 18 - from_end if from_end <= 14 else NO_GROUP


class AtomEmbedding(nn.Module):
    """Embeddings of element, tag, period and group, concatenated with properties, then linear maps with SiLU.

    Args:
        width: number C of channels; the element gets those that the other inputs leave.
        tag_width: number of channels for ``data.tags`` of catalysts (0 for atoms below the surface, 1 at the surface,
            2 of the adsorbate); 0 for none.
        table_width: number of channels for the period, and the same number for the group; 0 for none.
        properties: one row of physical properties for each of the 119 atomic numbers from 0; empty for none.
        property_width: number of channels of a linear map of the properties; 0 for no map.
        second: whether a second linear map follows.

    Shapes:
        Returns [N, C].

    Raises:
        InputError: no channels are left for the element, properties do not have one row per atomic number, or a tag is
            not 0 to 2, or a number is out of range.
        TensorError: ``data.z`` or ``data.tags`` is missing or has the wrong shape.

    Source:
        Duval et al. 2023, arXiv:2305.05577, section 5. Differs: every element has an embedding. Properties
        are constants, also with ``property_width``.
    """

    group: Tensor
    period: Tensor
    properties: Tensor

    def __init__(
        self,
        width: int,
        tag_width: int = 0,
        table_width: int = 0,
        properties: Sequence[Sequence[float]] = (),
        property_width: int = 0,
        second: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_sizes(self, least=0, tag_width=tag_width, table_width=table_width, property_width=property_width)
        count = len(properties[0]) if properties else 0
        if properties and [len(row) for row in properties] != [count] * NUM_ELEMENTS:
            raise InputError(f"properties need a row for each of the {NUM_ELEMENTS} atomic numbers from 0.")
        if property_width and not count:
            raise InputError(f"AtomEmbedding: property_width is {property_width}, but there are no properties to map.")
        element_width = width - tag_width - 2 * table_width - (property_width or count)
        if element_width < 1:
            raise InputError(
                f"Of width {width}, tags ({tag_width}), period and group (2 x {table_width}) and properties "
                f"({property_width or count}) leave {element_width} channels for the element; at least one is needed."
            )
        numbers = range(1, NUM_ELEMENTS)
        self.register_buffer("period", torch.tensor([0, *map(period_of, numbers)]), persistent=False)
        self.register_buffer("group", torch.tensor([0, *map(group_of, numbers)]), persistent=False)
        table = torch.tensor(properties, dtype=torch.float64).reshape(-1, count) if properties else torch.empty(0, 0)
        self.register_buffer("properties", table, persistent=False)
        self.element = nn.Embedding(NUM_ELEMENTS, element_width)
        self.tags = nn.Embedding(NUM_TAGS, tag_width) if tag_width else None
        self.periods = nn.Embedding(len(NOBLE_GASES) + 1, table_width) if table_width else None
        self.groups = nn.Embedding(NO_GROUP + 1, table_width) if table_width else None
        self.property_map = nn.Linear(count, property_width) if property_width else None
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width) if second else None

    @classmethod
    def example(cls) -> Self:
        return cls(8, tag_width=2, table_width=2, second=True)

    def forward(self, data: Data) -> Tensor:
        numbers = getattr(data, "z", None)
        if not isinstance(numbers, Tensor):
            raise TensorError("The embedding of atoms needs data.z, the atomic numbers, which is missing.")
        parts = [self.element(numbers)]
        if self.tags is not None:
            parts.append(self.tags(_tags(data)))
        if len(self.properties):
            rows = self.properties[numbers].to(parts[0].dtype)
            parts.append(rows if self.property_map is None else self.property_map(rows))
        if self.periods is not None and self.groups is not None:
            parts += [self.periods(self.period[numbers]), self.groups(self.group[numbers])]
        x = silu(self.first(torch.cat(parts, dim=-1)))  # [N, C]
        return x if self.second is None else silu(self.second(x))


def _tags(data: Data) -> Tensor:
    tags = getattr(data, "tags", None)
    meaning = "0 for an atom below the surface, 1 at the surface, 2 of the adsorbate"
    if not isinstance(tags, Tensor):
        raise TensorError(
            f"This network has tag_width and needs data.tags, which is missing: [N], {meaning}. "
            "Provide tags, or build the network with tag_width=0."
        )
    if tags.shape != data.pos.shape[:1]:
        raise TensorError(f"data.tags has shape {list(tags.shape)}; it must be {[len(data.pos)]}: {meaning}.")
    if not torch.compiler.is_compiling():
        known = torch.isin(tags, torch.arange(NUM_TAGS, device=tags.device).to(tags.dtype))
        if not bool(known.all()):
            raise InputError(f"data.tags has the value {tags[~known][0].item()}; a tag is {meaning}.")
    return tags.long()
