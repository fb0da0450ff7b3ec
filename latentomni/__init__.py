"""LatentOmni: an audio-visual language model that reasons in continuous latents between its words."""

__version__ = "0.1.0"
