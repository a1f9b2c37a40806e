"""Compiled datasets in the formats of others."""
