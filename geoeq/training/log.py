"""Log of a run: a line of log.csv for every epoch, and TensorBoard if requested."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
from pathlib import Path
from typing import Any, Literal

from geoeq.errors import MissingExtraError
from geoeq.files import read_log, write_text

__all__ = ["Log"]


class Log:
    """Log file with one row per epoch.

    Args:
        path: path of the CSV file.
        columns: names of the columns; the first is "epoch".
        epochs: number of epochs to keep; rows that an interrupted run wrote after its last saved state are dropped.
        kind: "csv", "tensorboard" (in addition to csv), or "auto" (tensorboard if it is installed).

    Raises:
        MissingExtraError: TensorBoard is requested but not installed.
    """

    def __init__(
        self, path: Path, columns: list[str], epochs: int = 0, kind: Literal["csv", "tensorboard", "auto"] = "csv"
    ) -> None:
        self._path, self._columns = path, columns
        kept = [row for row in read_log(path) if row["epoch"] <= epochs] if path.is_file() else []
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(column, "") for column in columns] for row in kept)
        write_text(path, text.getvalue())

        self._board: Any = None
        installed = importlib.util.find_spec("tensorboard") is not None
        if kind == "tensorboard" and not installed:
            raise MissingExtraError("log: tensorboard needs the package 'tensorboard': pip install tensorboard")
        if kind == "tensorboard" or (kind == "auto" and installed):
            module = importlib.import_module("torch.utils.tensorboard")
            self._board = module.SummaryWriter(str(path.parent / "tensorboard"), purge_step=epochs + 1)

    def append(self, row: dict[str, float]) -> None:
        """Append the row of an epoch; missing columns are left empty."""
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([row.get(column, "") for column in self._columns])
        if self._board is not None:
            for name, value in row.items():
                if name != "epoch":
                    self._board.add_scalar(name, value, int(row["epoch"]))
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()
