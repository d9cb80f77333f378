"""``python -m geoeq``: the command line."""

import sys

from geoeq.cli.main import main

sys.exit(main())
