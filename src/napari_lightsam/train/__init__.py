"""Making and judging models; imported by the command line only."""
