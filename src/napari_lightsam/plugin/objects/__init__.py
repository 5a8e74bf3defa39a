"""Objects in Labels layers: saved, listed, repaired and checked, each change a step of the undo timeline."""
