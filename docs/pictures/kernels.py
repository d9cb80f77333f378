"""Draw docs/pictures/kernels.png: time per edge, from benchmarks/results/kernels.json.

python docs/pictures/kernels.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

INK, BLUE, ORANGE, GREEN = "#22303c", "#1f6fb2", "#d9662c", "#3c8d5a"
ROOT = Path(__file__).parent.parent.parent
TARGET = ROOT / "docs" / "pictures" / "kernels.png"
PASSES = (
    ("forward", "forward", BLUE),
    ("backward", "and derivatives", GREEN),
    ("double", "and second derivatives", ORANGE),
)


def main() -> None:
    cases: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "kernels.json").read_text())["cases"]
    by_edges = [entry for name, entry in cases.items() if name.endswith(" edges")]
    by_degree = [(int(name.split()[1]), entry) for name, entry in cases.items() if name.startswith("lmax ")]
    figure = Figure(figsize=(7.2, 3.3), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for step, label, color in PASSES:
        style = {"color": color, "marker": "o", "markersize": 3, "label": label}
        edges = [entry["counted"]["edges"] for entry in by_edges if step in entry["found"]["geoeq, llvm"]]
        left.plot(edges, [_each(entry, step) for entry in by_edges if step in entry["found"]["geoeq, llvm"]], **style)
        right.plot([degree for degree, _ in by_degree], [_each(entry, step) for _, entry in by_degree], **style)
    left.set_xscale("log")
    left.set_xlabel("number of edges (l ≤ 2)", fontsize=8, color=INK)
    left.set_ylabel("time per edge [ns], 64 channels", fontsize=8, color=INK)
    right.set_xlabel("highest degree (9792 edges)", fontsize=8, color=INK)
    right.set_xticks([degree for degree, _ in by_degree])
    for axes in (left, right):
        axes.set_yscale("log")
        axes.tick_params(labelsize=8, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e8eb", linewidth=0.6)
    left.legend(fontsize=7, frameon=False)
    figure.savefig(TARGET, metadata={"Software": None})


def _each(entry: dict[str, Any], step: str) -> float:
    milliseconds: float = entry["found"]["geoeq, llvm"][step]
    return 1e6 * milliseconds / float(entry["counted"]["edges"])


if __name__ == "__main__":
    main()
