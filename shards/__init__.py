"""The bytes of datasets, without their meaning: stores, codecs, names of shards, the tar writer."""
