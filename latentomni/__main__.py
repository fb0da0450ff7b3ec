"""`python -m latentomni COMMAND`."""

import sys

from latentomni.cli import main

if __name__ == "__main__":
    sys.exit(main())
