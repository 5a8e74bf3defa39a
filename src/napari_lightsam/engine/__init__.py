"""The engine: images, weights, prompts and masks; numpy in, numpy out, no Qt and no napari."""
