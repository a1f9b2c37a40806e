"""Scenes: environments that are concluded from what the camera sees, where nobody has recorded them."""
