"""Roles of cameras: from where a camera looks, whatever its dataset calls it."""

from __future__ import annotations

ROLES = ("primary", "secondary", "wrist")
"""The main view of the scene, another view of it, and the view from the robot's hand."""
