"""What is known of a camera, whatever its dataset calls it: from where it looks, and how it holds colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oxcart.shards.codec import VIDEO_EXTENSIONS

ROLES = ("primary", "secondary", "wrist")
"""The main view of the scene, another view of it, and the view from the robot's hand."""
CHANNELS = ("rgb", "bgr")
"""Orders in which the images of a source may hold their colours; frames that are read are always RGB."""


def stored_bgr(camera: Mapping[str, Any]) -> bool:
    """Whether stored frames hold BGR: a source's own video may, since nothing of it is decoded.

    Args:
        camera: the camera's entry of the manifest.
    """
    copied = camera["codec"] in VIDEO_EXTENSIONS and camera["quality"] is None
    return copied and camera.get("channels") == "bgr"
