"""A process that works on items, one line of JSON each; it imports little, so that it is there at once.

What a calculator prints goes to the standard error stream, as answers go through the standard output.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from geoeq.factory.methods import find_method
from geoeq.factory.settings import Settings
from geoeq.factory.tasks import run_item


def _main() -> None:
    warnings.simplefilter("ignore")
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        settings = Settings.from_json(sys.stdin.readline())
        method = find_method(settings.method, settings.arguments)
        for line in sys.stdin:
            item = json.loads(line)
            run_item(item, settings, method).write(Path(item["output"]))
            answers.write("done\n")
            answers.flush()


if __name__ == "__main__":
    _main()
