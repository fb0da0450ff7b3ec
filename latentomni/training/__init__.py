"""Training: towers, latent blocks and feedback. A leaf: nothing imports it but the command line."""
