"""Are these the frames of principal axes that others publish? A case of ``geoeq parity`` without a network."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.geometry.frames import inputs_that_turn, pca_frames

__all__ = ["PrincipalFrames"]


class PrincipalFrames:
    """No network, but all frames of structures: ``input.posk`` gives ``output.rotationsk`` and ``output.framesk``."""

    def run(
        self, parts: dict[str, dict[str, Tensor]], hyperparameters: dict[str, object]
    ) -> tuple[dict[str, Tensor], str]:
        """Our frames of E(3), each in the place of the published one closest to it: their order means nothing."""
        numbers = sorted(int(name.removeprefix("pos")) for name in parts["input"])
        positions = [parts["input"][f"pos{number}"] for number in numbers]
        batch = Batch.from_data_list([Data(pos=pos) for pos in positions])
        frames = pca_frames(*inputs_that_turn(batch, "E(3)"), group="E(3)")
        found = {}
        for graph, (number, pos) in enumerate(zip(numbers, positions, strict=True)):
            rotations = frames.rotations[frames.graph == graph]
            distances = torch.cdist(parts["output"][f"rotations{number}"].flatten(1), rotations.flatten(1))
            place = distances.argmin(1)
            if len(place.unique()) < len(rotations):  # two of the published are one of ours: another set
                place = place[:0]
            found[f"rotations{number}"] = rotations[place]
            found[f"frames{number}"] = (pos - frames.centroids[graph]) @ rotations[place]
        return found, ""
