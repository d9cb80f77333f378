"""Environments of their own for the packages that ``md.py`` compares with: their pins are not those of geoeq."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

#: The distributions of each peer, in the version that is compared with.
PEERS = {"mace": "mace-torch==0.3.16", "nequip": "nequip==0.19.1"}

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geoeq" / "benchmarks" / "peers"

#: Seconds for one installation, which loads PyTorch anew.
PATIENCE = 1800


def interpreter(peer: str, cache: Path = CACHE) -> Path:
    """The Python of a peer's environment, which is made where there is none: with the PyTorch that runs here.

    Raises:
        RuntimeError: it cannot be installed; the message ends with what pip said.
    """
    folder = cache / peer
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = f"{PEERS[peer]} torch=={torch.__version__}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Installing {wanted} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    # A build of PyTorch for one device ("2.13.0+cpu") is not on every index; its version without the label is.
    for version in dict.fromkeys([torch.__version__, torch.__version__.partition("+")[0]]):
        command = [*install, PEERS[peer], f"torch=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode == 0:
            stamp.write_text(wanted, encoding="utf-8")
            return python
    raise RuntimeError(f"{PEERS[peer]} cannot be installed: {' '.join(done.stderr.split()[-60:])}")
