"""The `*.lightsam` file: as text an image and how to segment it, as an archive work and all to repeat it.

`docs/sessions.md` describes both, field by field.
"""

from napari_lightsam.session.archive import read_document, read_lightsam, write_document
from napari_lightsam.session.document import Document, ImageRecord, LabelRecord, Run
from napari_lightsam.session.recipe import FORMAT, SUFFIX, Selection, Session, read_session, write_session

__all__ = [
    "FORMAT",
    "SUFFIX",
    "Document",
    "ImageRecord",
    "LabelRecord",
    "Run",
    "Selection",
    "Session",
    "read_document",
    "read_lightsam",
    "read_session",
    "write_document",
    "write_session",
]
