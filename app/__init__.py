"""The web app: `ui` lays the page out, `handlers` turn events into component values, `copy` holds every text."""

import os

if os.environ.get("LATENTOMNI_LOG") == "json":  # progress bars are no lines; tqdm looks when it is imported
    os.environ.setdefault("TQDM_DISABLE", "1")
