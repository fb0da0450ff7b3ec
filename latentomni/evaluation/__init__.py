"""Evaluation on AV World: accuracy, windows and evidence against chance and controls. A leaf, like training."""
