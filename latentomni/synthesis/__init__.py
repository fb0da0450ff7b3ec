"""LatentOmni-Instruct: from captioned clips to training rows, by language models behind OpenAI-compatible endpoints.

Three stages after the paper (section 4): questions that need both modalities; segments told from what is seen and from what is heard;
trajectories that cite segments. docs/SYNTHESIS.md is the schema.
"""

from latentomni.synthesis.pipeline import synthesize
from latentomni.synthesis.settings import Role, Settings, read_settings
from latentomni.synthesis.sources import avworld_sources, read_sources

__all__ = ["Role", "Settings", "avworld_sources", "read_settings", "read_sources", "synthesize"]
