"""What ``geoeq.data.prepare.worker`` starts: it forks into the processes that read shards."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from geoeq.data.card import Card
from geoeq.data.prepare.reading import make_reader
from geoeq.data.prepare.worker import write_part
from geoeq.data.records import Shard
from geoeq.errors import GeoeqError
from geoeq.typed import parse


def _main() -> None:
    begin = json.load(sys.stdin)
    reader = make_reader(parse(Card, begin["card"], "card"), begin["sample"])
    gc.freeze()  # or the collector would write to all objects, and copy the memory that is shared
    children = []
    for asked, answer in begin["pipes"]:
        child = os.fork()
        if child == 0:
            for end in (end for ends in begin["pipes"] for end in ends if end not in (asked, answer)):
                os.close(end)  # an end that others hold would hide that this process has gone
            with os.fdopen(asked) as lines, os.fdopen(answer, "w") as answers:
                _work(reader, begin, lines, answers)
            os._exit(0)
        children.append(child)
        os.close(asked)
        os.close(answer)
        begin["pipes"] = [ends for ends in begin["pipes"] if ends != [asked, answer]]
    for child in children:
        os.waitpid(child, 0)


def _work(reader: Any, begin: dict[str, Any], lines: IO[str], answers: IO[str]) -> None:
    card = parse(Card, begin["card"], "card")
    files = {name: Path(path) for name, path in begin["files"].items()}
    for line in lines:
        asked = json.loads(line)
        error = None
        try:
            write_part(card, reader, files, Shard(*asked["shard"]), Path(asked["folder"]))
        except GeoeqError as found:
            error = {"kind": type(found).__name__, "message": str(found)}
        answers.write(json.dumps(error) + "\n")
        answers.flush()


if __name__ == "__main__":
    _main()
