"""Commands that use a trained model work without the extra for training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from geoeq.errors import MissingExtraError
from geoeq.models import EGNN, Forces, GraphScalar, save_checkpoint
from geoeq.resources import EXTRAS, import_extra

WATER = '3\nProperties=species:S:1:pos:R:3 pbc="F F F"\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n'

RUN = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

hidden = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Hide())
from geoeq.cli.main import main
statuses = [main(command.split()) for command in sys.argv[2:]]
sys.exit(0 if set(statuses) == {0} else f"exit statuses {statuses}")
"""

COMMANDS = [
    "check run",
    "check geoeq.models.EGNN",
    "predict run water.xyz",
    "md run water.xyz --ensemble nve --temperature 300K --steps 2 -o md",
    "data info water.xyz",
    "data doctor water.xyz",
    "export run out.pt2 --no-compile",
]


def run_without(hidden: str, commands: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    model = Forces(EGNN([GraphScalar("energy")], width=4, layers=1, cutoff=3.0))
    save_checkpoint(model, folder / "run", {"targets": ["energy"], "units": {}})
    (folder / "water.xyz").write_text(WATER)
    command = [sys.executable, "-W", "ignore", "-c", RUN, hidden, *commands]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_trained_model_is_used_without_lightning(tmp_path: Path) -> None:
    result = run_without("lightning,pytorch_lightning,torchmetrics", COMMANDS, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_tables_and_plots_have_an_extra_of_their_own(tmp_path: Path) -> None:
    assert set(EXTRAS["plots"]) < set(EXTRAS["train"])
    with pytest.raises(MissingExtraError, match=r"\[plots\]"):
        import_extra("no_such_package", "plots")


@pytest.mark.slow
@pytest.mark.parametrize("hidden", ["rich", "matplotlib"])
def test_without_tables_and_plots_their_extra_is_named(hidden: str, tmp_path: Path) -> None:
    result = run_without(hidden, ["md run water.xyz --ensemble nve --temperature 300K --steps 2 -o md"], tmp_path)
    assert result.returncode == 1
    assert "[plots]" in result.stderr
    assert "Traceback" not in result.stderr
