"""The latent-action model: what moved between two frames, as a few codes."""
