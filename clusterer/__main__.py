"""``python -m clusterer``: the same as the ``clusterer`` command."""

import sys

from clusterer.cli import main

if __name__ == "__main__":
    sys.exit(main())
