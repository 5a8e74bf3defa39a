"""A frozen teacher that embeds training crops, and a cache on disk of what it said.

A cached embedding is found by the crops' own pixels. So it serves an interrupted run that goes on, the next
student, and another method alike, and never the wrong crops.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_lightsam.engine.warned import tell
from napari_lightsam.formats.atomic import WriteError, written_whole
from napari_lightsam.model.spec import STRIDE, FixedFrame
from napari_lightsam.train.devices import half_precision

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lightsam.engine.weights import LoadedModel
    from napari_lightsam.train.crops import Batch

_VERSION = "1"  # of how a teacher is shown crops; a new one leaves older embeddings unused
_NAME = "tokens"


class EmbeddingCache:
    """Embeddings of one teacher in a folder, up to a size.

    Parameters
    ----------
    folder
        Each teacher gets its own folder in it.
    teacher
        sha256 of the teacher's weights.
    limit
        Bytes that the teacher's folder may grow to. What is there stays when it is full: crops that come
        again in turn would otherwise be thrown away just before they are needed.
    """

    def __init__(self, folder: Path, teacher: str, limit: int) -> None:
        self._folder = folder / teacher[:16]
        self._about = {"teacher": teacher, "version": _VERSION}
        self._limit = limit
        self._used = sum(path.stat().st_size for path in self._folder.glob("*.safetensors"))

    def read(self, key: str, shape: tuple[int, ...]) -> Tensor | None:
        """Return the float16 embedding of crops; None when there is none, or a damaged one."""
        try:
            with safe_open(self._path(key), "pt") as file:
                about, tokens = file.metadata(), file.get_tensor(_NAME)
        except (OSError, SafetensorError):
            return None
        whole = about == {**self._about, "content": _digest(tokens)}
        return tokens if whole and tuple(tokens.shape) == shape else None

    def write(self, key: str, tokens: Tensor) -> None:
        """Keep a float16 embedding, unless the folder is full."""
        path = self._path(key)
        size = tokens.nbytes
        if self._used + size > self._limit:
            return
        before = path.stat().st_size if path.exists() else 0
        try:
            with written_whole(path) as part:
                save_file({_NAME: tokens}, part, {**self._about, "content": _digest(tokens)})
        except WriteError as error:  # the run does not need the cache
            tell(f"{error} Embeddings are not cached any more.", stacklevel=2)
            self._limit = 0
        else:
            self._used += path.stat().st_size - before

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


def _digest(values: Tensor) -> str:
    return hashlib.blake2b(values.contiguous().cpu().numpy().tobytes(), digest_size=16).hexdigest()


class Teacher:
    """A model that a student learns from.

    Parameters
    ----------
    loaded
        The model; its weights stay as they are, and follow the crops to their device.
    cache
        Keeps its embeddings; None asks it anew each time.
    """

    def __init__(self, loaded: LoadedModel, cache: EmbeddingCache | None = None) -> None:
        self.loaded, self.model = loaded, loaded.model
        self._cache = cache
        self._device = torch.device("cpu")

    @torch.no_grad()
    def tokens(self, batch: Batch) -> Tensor:
        """Embed the crops of a batch as float32 (B, 256, S/16, S/16), on the student's own grid of tokens.

        The values are those of float16, cached or not, so that a continued run sees what the unbroken one
        would have seen.
        """
        side, device = batch.frames.shape[-1] // STRIDE, batch.frames.device
        if device != self._device:
            self.model.to(device)
            self._device = device
        if self._cache is None:
            return self._embed(batch, side).float()
        key = _digest(batch.frames)
        tokens = self._cache.read(key, (len(batch.frames), 256, side, side))
        if tokens is None:
            tokens = self._embed(batch, side)
            self._cache.write(key, tokens.cpu())
        return tokens.to(device).float()

    def _embed(self, batch: Batch, side: int) -> Tensor:
        frame = self.loaded.spec.frame
        with half_precision(batch.frames.device):
            if not isinstance(frame, FixedFrame):
                return self.model.encode(batch.frames).half().contiguous()
            tokens = [self.model.encode(crop[None]) for crop in as_fixed_frames(batch, frame)]
        return F.adaptive_avg_pool2d(torch.cat(tokens).float(), side).half().contiguous()


def as_fixed_frames(batch: Batch, frame: FixedFrame) -> Tensor:
    """Show crops to a teacher of the SAM family as it was trained to see images.

    Each crop is an image of its own: its visible part is stretched to whole numbers from 0 to 255,
    standardised by SAM's mean and deviation, zero where there is no image, and resized to SAM's frame. So an
    object is seen larger than the student sees it, at the size at which SAM saw objects, and each of the
    student's tokens covers the same pixels as a block of the teacher's, whose mean it is taught.

    Parameters
    ----------
    batch
        Crops (B, 3, S, S).
    frame
        The teacher's preprocessing.

    Returns
    -------
    Tensor
        (B, 3, size, size).
    """
    seen = batch.inside[:, None]
    low = torch.where(seen, batch.frames, torch.inf).amin((1, 2, 3), keepdim=True)
    high = torch.where(seen, batch.frames, -torch.inf).amax((1, 2, 3), keepdim=True)
    grey = ((batch.frames - low) / (high - low).clamp(min=1e-6) * 255).round()
    mean, std = (grey.new_tensor(values)[:, None, None] for values in (frame.mean, frame.std))
    normal = torch.where(seen, (grey - mean) / std, 0.0)
    return F.interpolate(normal, (frame.size, frame.size), mode="bilinear", align_corners=False)
