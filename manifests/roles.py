"""What is known of a camera, whatever its dataset calls it: from where it looks, and how it holds colours."""

from __future__ import annotations

ROLES = ("primary", "secondary", "wrist")
"""The main view of the scene, another view of it, and the view from the robot's hand."""
CHANNELS = ("rgb", "bgr")
"""Orders in which the images of a source may hold their colours; stored frames are always RGB."""
