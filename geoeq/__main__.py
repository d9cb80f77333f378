"""The command line as ``python -m geoeq``."""

import os
import sys

if not sys.flags.safe_path and os.path.dirname(os.path.dirname(__file__)) != os.path.abspath(sys.path[0]):
    del sys.path[0]  # the current folder, which Python puts before all others, and where a stranger's file may lie

from geoeq.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
