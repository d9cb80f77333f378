"""The tables of ``md.py``, in Markdown."""

from __future__ import annotations

from typing import Any


def tables(results: dict[str, Any]) -> list[str]:
    """All that was measured."""
    peers = [name for name, model in results["models"].items() if model["factory"] != "geoeq"]
    lines = ["# Molecular dynamics", "", "Written by `python benchmarks/md.py`:", ""]
    lines += [f"{number}. {about}." for number, about in enumerate(results["runs"], 1)]
    if len(results["runs"]) > 1:
        lines += [
            "",
            "Square brackets give the run of a step time if it is not the first; the runs are from different days.",
        ]
    lines += [
        "",
        "Random weights, a cutoff of 5 Å, float32, the same ASE loop and the same trajectory for all; medians over "
        "alternating repeats. No model is compiled by torch.compile or by a compiler of its package.",
        "",
    ]
    lines += [f"{peer} is missing: {reason}\n" for peer, reason in results["missing"].items()]
    return [*lines, *_models(results), "", *_times(results, peers), "", *_parts(results), "", *_atoms(results)]


def _models(results: dict[str, Any]) -> list[str]:
    lines = ["| model | package | features | layers | parameters |", "|---|---|---|---:|---:|"]
    for name, model in results["models"].items():
        known = [entry["found"][name] for entry in results["structures"].values() if name in entry["found"]]
        known = [found for found in known if "parameters" in found]
        packages = known[0]["packages"] if known else model["factory"]
        count = f"{known[0]['parameters']:,}" if known else ""
        lines.append(f"| {name} | {packages} | {model['features']} | {model['layers']} | {count} |")
    return lines


def _times(results: dict[str, Any], peers: list[str]) -> list[str]:
    """Milliseconds of a step, and in brackets how many times as fast that is as the fastest of the peers."""
    structures = results["structures"]
    lines = ["## Time of a step [ms], and speed-up over the fastest peer", ""]
    heads = [f"{name}, {entry['neighbors']:.0f} neighbours" for name, entry in structures.items()]
    lines += [f"| model | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    fastest = {}
    for name, entry in structures.items():
        steps = [entry["found"][peer]["step"] for peer in peers if "step" in entry["found"].get(peer, {})]
        fastest[name] = min(steps, default=None)
    for model in results["models"]:
        cells = []
        for name, entry in structures.items():
            found = entry["found"].get(model, {})
            if "step" not in found:
                cells.append(found.get("failure", "not run"))
                continue
            best = fastest[name]
            ratio = "" if best is None else f" ({best / found['step']:.2g})"
            run = f" [{found['run']}]" if found.get("run", 1) > 1 else ""
            cells.append(f"{found['step']:.3g}{ratio}{run}")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _parts(results: dict[str, Any]) -> list[str]:
    lines = ["## Neighbour list / model / overhead [ms], and share of the overhead", ""]
    structures = {name: entry for name, entry in results["structures"].items() if entry["atoms"] <= 1000}
    lines += [f"| model | {' | '.join(structures)} |", f"|---|{'---:|' * len(structures)}"]
    for model in results["models"]:
        cells = []
        for entry in structures.values():
            found = entry["found"].get(model, {})
            if "step" not in found:
                cells.append("")
                continue
            parts = [found[name] for name in ("neighbors", "model", "overhead")]
            cells.append(f"{' / '.join(f'{part:.2g}' for part in parts)}: {100 * parts[2] / sum(parts):.1f}%")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _atoms(results: dict[str, Any]) -> list[str]:
    """Time and memory of an atom of silicon, where the structures differ in nothing but their size."""
    lines = ["## Time [µs] and memory [kB] per atom of silicon", ""]
    structures = {name: entry for name, entry in results["structures"].items() if name.startswith("Si")}
    lines += [f"| model | {' | '.join(structures)} |", f"|---|{'---:|' * len(structures)}"]
    for model in results["models"]:
        cells = []
        for entry in structures.values():
            found, atoms = entry["found"].get(model, {}), entry["atoms"]
            if "step" not in found:
                cells.append("")
                continue
            memory = (
                f", {1024 * found['MB'] / atoms:.0f}" if atoms >= 500 else ""
            )  # of few atoms it is lost in the rest
            cells.append(f"{1e3 * found['step'] / atoms:.1f}{memory}")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines
