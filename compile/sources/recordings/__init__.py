"""One's own recordings: written episode by episode from Python, and then compiled like any other source."""
