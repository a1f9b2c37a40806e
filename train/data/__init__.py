"""Batches from compiled datasets: which samples, in which order, read how."""
