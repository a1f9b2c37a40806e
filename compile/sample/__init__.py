"""Simulated kitchens to act in and to record, and drawn videos: for demo, tests and benchmarks."""
