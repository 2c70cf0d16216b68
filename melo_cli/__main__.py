"""`python -m melo_cli`: the same as `melo`."""

from __future__ import annotations

import sys

from melo_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
