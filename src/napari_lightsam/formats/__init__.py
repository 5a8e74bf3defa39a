"""Files in and out: images, label images, tables, overlays and the record beside every result."""
