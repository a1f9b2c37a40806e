"""Policies that act: from many episodes without actions and few with, to a controller."""
