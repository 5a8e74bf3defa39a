"""Everything at once: a run, its preview, its layer, and choosing again among what it found."""
