"""Many images to label images, tables and records: resumable, and never at an input's expense."""

from napari_lightsam.batch.run import segment_files
from napari_lightsam.batch.settings import BatchReport, BatchSettings, FileOutcome

__all__ = ["BatchReport", "BatchSettings", "FileOutcome", "segment_files"]
