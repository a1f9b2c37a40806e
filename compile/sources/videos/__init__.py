"""Folders of videos: shots are cut into clips, and a clip is an episode."""
