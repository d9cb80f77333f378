"""The command line as ``python -m geoeq``."""

import sys

from geoeq.cli.main import main

sys.exit(main())
