"""Benchmarks: what this code costs beside its peers, each measured in one interleaved run."""
