"""An embedded RLDS dataset: simulated kitchens for the demo, the tests and the benchmarks."""
