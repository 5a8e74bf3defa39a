"""Single objects by points and boxes: prompts, their layers, what the model answers, and its preview."""
