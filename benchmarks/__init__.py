"""Speed, memory and start-up, measured beside the published procedure: `python -m benchmarks`."""
