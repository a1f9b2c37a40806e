"""The meaning of a dataset: the manifest, the episode table, the split rule; inspect, show and verify."""
