"""The web app: `python app.py` serves it on http://127.0.0.1:7860 (`python app.py --help` lists what can be set)."""

import sys

from app.settings import Settings
from app.ui import build, launch

settings = Settings.read(sys.argv[1:] if __name__ == "__main__" else [])
demo = build(settings)

if __name__ == "__main__":
    launch(demo, settings)
