"""``python -m ssvid``."""

import sys

from ssvid.cli import main

if __name__ == "__main__":
    sys.exit(main())
