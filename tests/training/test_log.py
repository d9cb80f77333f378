"""The log of a run."""

from __future__ import annotations

from pathlib import Path

from geoeq.files import atomic_write, read_log
from geoeq.training.log import Log


def test_rows_after_the_saved_state_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = Log(path, ["epoch", "lr", "valid loss"])
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch, "lr": 1e-3 / epoch, "valid loss": 0.5})
    with path.open("a") as file:
        file.write("4,0.00")  # a killed run may leave an incomplete line
    assert [row["epoch"] for row in read_log(path)] == [1, 2, 3]
    log = Log(path, ["epoch", "lr", "valid loss"], epochs=2)
    log.append({"epoch": 3, "lr": 0.25})
    assert read_log(path) == [
        {"epoch": 1, "lr": 1e-3, "valid loss": 0.5},
        {"epoch": 2, "lr": 5e-4, "valid loss": 0.5},
        {"epoch": 3, "lr": 0.25},
    ]


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before")
    try:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
