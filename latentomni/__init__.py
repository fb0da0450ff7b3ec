"""LatentOmni: an audio-visual language model that reasons in continuous latents between its words."""

import logging

__version__ = "0.1.0"

# On a machine without a GPU bitsandbytes warns that a package is missing which no requirement names, its own or ours.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
