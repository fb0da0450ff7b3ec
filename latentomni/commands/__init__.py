"""One module per command: `add_to` describes it to argparse, `run` does it and returns what `--json` prints."""
