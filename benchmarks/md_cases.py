"""The potentials that ``md.py`` times, and their sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """One potential."""

    name: str
    factory: str
    arguments: dict[str, Any]
    features: str
    layers: int


CASES = (
    Case("EGNN 64", "geoeq", {"network": "EGNN", "width": 64, "layers": 4}, "64x0e, one vector", 4),
    Case("EGNN 128", "geoeq", {"network": "EGNN", "width": 128, "layers": 4}, "128x0e, one vector", 4),
    Case(
        "FAENet 128, all frames", "geoeq", {"network": "FAENet", "width": 128, "layers": 4, "frames": "full"}, "128", 4
    ),
    Case("PONITA 128", "geoeq", {"network": "PONITA", "preset": "md17"}, "128 on 20 orientations", 5),
    Case(
        "SE3Transformer 32",
        "geoeq",
        {"network": "SE3Transformer", "width": 32, "layers": 4, "lmax": 2},
        "32 of l <= 2",
        4,
    ),
    Case("Equiformer 128", "geoeq", {"network": "Equiformer", "preset": "md17"}, "128x0e + 64x1e + 32x2e", 6),
    *(
        Case(
            f"TensorFieldNetwork {width}, l <= {lmax}",
            "geoeq",
            {"network": "TensorFieldNetwork", "width": width, "layers": 4, "lmax": lmax},
            f"{width} of l <= {lmax}, one parity",
            4,
        )
        for width, lmax in ((32, 1), (32, 2), (64, 1), (64, 2))
    ),
    *(
        Case(f"MACE {width}", "mace", {"hidden_irreps": f"{width}x0e + {width}x1o"}, f"{width}x0e + {width}x1o", 2)
        for width in (64, 128)
    ),
    *(
        Case(
            f"NequIP {width}, l <= {lmax}",
            "nequip",
            {"num_features": width, "l_max": lmax, "num_layers": 4},
            f"{width} of l <= {lmax}, one parity",
            4,
        )
        for width, lmax in ((32, 1), (32, 2), (64, 1), (64, 2))
    ),
)
