"""Errors that say what was given, what is accepted and what to do next.

All derive from `LightSamError`, which is deliberately no `RuntimeError`: napari's generator workers
swallow those, and an error must never be lost.
"""


class LightSamError(Exception):
    """Base of every error this package raises on purpose."""


class ImageError(LightSamError):
    """The image cannot be segmented as it was given (empty, complex, wrong number of axes ...)."""


class PromptError(LightSamError):
    """Points, boxes or a mask do not fit the image or each other."""


class ConfigError(LightSamError):
    """A setting has a value that is not accepted."""


class WeightsError(LightSamError):
    """A checkpoint cannot be used: unknown layout, wrong tensors, truncated, or a pickled program."""


class DownloadError(WeightsError):
    """A checkpoint could not be fetched or is not what it claims to be."""


class DeviceError(LightSamError):
    """The chosen device is missing, or ran out of memory even for the smallest batch."""


class FileError(LightSamError):
    """A file cannot be read, or must not be written."""


class TrainError(LightSamError):
    """Training cannot go on, or its outcome must not be used."""
