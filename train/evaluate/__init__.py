"""What the codes of a model mean, and whether they mean the same everywhere."""
