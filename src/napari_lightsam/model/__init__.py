"""The networks: torch modules, tensors in, tensors out."""
