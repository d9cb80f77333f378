"""The results of ``data.py`` as Markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["markdown"]


def markdown(results: dict[str, Any]) -> str:
    """All tables, with where they come from."""
    made, opening, simulation = results["made"], results["opening"], results["simulation"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("torch", "torch-geometric", "ase", "numpy"))
    lines = [
        "# Data pipeline",
        "",
        f"Written by `python benchmarks/data.py` on {made['date']}: {made['processor']}, {made['cores']} "
        f"core{'s' * (made['cores'] > 1)} (one thread used), commit {made['commit']}, "
        f"Python {made['python']}, {versions}.",
        *_loader(results["loader"]),
        *_reading("molecules", results["reading"]["molecules"]),
        *_reading("periodic slabs", results["reading"]["slabs"]),
        *_waiting(results["waiting"]),
        "",
        "## Other times",
        "",
        f"Opening the cache of {opening['count']} molecules ({opening['MB']:.0f} MB, 17 targets) and reading the "
        f"first and last: {opening['opening'] * 1000:.1f} ms; verifying every checksum: "
        f"{opening['verifying'] * 1000:.0f} ms.",
        "",
        f"Simulating {simulation['count']} charged systems of the published N-body set, 5000 steps each: "
        f"{simulation['seconds']:.1f} s.",
    ]
    return "\n".join(lines) + "\n"


def _loader(found: dict[str, Any]) -> list[str]:
    count = found["count"]
    return [
        "",
        "## Loader, with edges",
        "",
        f"{count} molecules of {found['atoms']:.1f} atoms and {found['edges']:.0f} edges (within {found['cutoff']} Å) "
        f"on average, batches of {found['batch']}, shuffled, one target, no workers; the best of five epochs, in "
        "seconds on one core.",
        "",
        "| loader | molecules per second | time per epoch |",
        "|---|---:|---:|",
        *[f"| {name} | {count / taken:,.0f} | {taken:.2f} s |" for name, taken in found["seconds"].items()],
        "",
        f"With edges, geoeq's loader yields **{found['ratio']:.1f} times** as many molecules per second as PyG's with "
        f"precomputed edges. Computing the edges of all {count} molecules once took {found['finding edges']:.1f} s.",
    ]


def _reading(what: str, found: dict[str, Any]) -> list[str]:
    count, size = found["count"], found["bytes"]
    rows = [f"| {name} | {rate:,.0f} | {rate * size / 1e6:,.1f} |" for name, rate in found["rates"].items()]
    return [
        "",
        f"## Reading {what}",
        "",
        f"{count} structures of {found['atoms']:.1f} atoms on average with {' and '.join(found['targets'])}, no edges. "
        f"geoeq and PyG: random batches of {found['batch']}, {found['passes']} epochs, not counting the first batch. "
        "ASE: structure by structure. The best of several passes, in wall time; all files are in the page cache. "
        f"Megabytes count the requested data ({size:.0f} bytes per structure), not the size of the file.",
        "",
        "| reader | structures per second | MB/s |",
        "|---|---:|---:|",
        *rows,
        "",
        f"Without workers, geoeq reads **{found['times ASE']:.0f} times** as many structures per second as the fastest "
        f"way of ASE ({found['fastest of ASE']}), and {found['times PyG']:.1f} times as many as the fastest of PyG.",
    ]


def _waiting(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "",
        "## Waiting for data",
        "",
        "EGNN in training (forward, backward and Adam) on these structures, with the network and batches of a recipe. "
        "A thread prepares the next batch during a step, as in `geoeq train`, unless stated otherwise.",
        "",
        "| recipe | batches | steps | step including its batch [ms] | of which waiting for the batch [ms] | share |",
        "|---|---|---:|---:|---:|---:|",
        *[
            f"| `{row['recipe']}` | {row['what']} | {row['steps']} | {row['step']:.1f} | {row['wait']:.2f} | "
            f"{row['share']:.2f} % |"
            for row in rows
        ],
    ]
