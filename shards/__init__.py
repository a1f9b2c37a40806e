"""Bytes: the store, codecs, the tar writer and ranged reads. Knows nothing of what the bytes mean."""
