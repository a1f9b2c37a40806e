"""Bytes: stores, codecs, names of shards, the tar writer. It knows nothing of what the bytes mean."""
