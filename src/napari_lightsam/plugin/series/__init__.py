"""The images of a folder annotated one after the other: which are done, which is next, what is written."""
