"""The engine's front door: load a model, embed a plane, ask for masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.engine.answer import answer
from napari_lightsam.engine.decode import encode_block
from napari_lightsam.engine.given import check_size
from napari_lightsam.engine.image import ArrayLike as ImageArray
from napari_lightsam.engine.image import Limits, prepare_plane
from napari_lightsam.engine.level import BLOCK, Block, BlockCache, Embedding, Level, make_level
from napari_lightsam.engine.masks import Mask, Masks
from napari_lightsam.engine.prompts import check_prompts
from napari_lightsam.engine.proposals import as_proposals
from napari_lightsam.engine.runtime import Device, Runtime, choose_device
from napari_lightsam.engine.scales import pyramid
from napari_lightsam.errors import PromptError
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

    from numpy.typing import ArrayLike

    from napari_lightsam.engine.config import Precision, RuntimeName
    from napari_lightsam.engine.everything import EverythingConfig, Segmentation
    from napari_lightsam.engine.merge import LabelArray
    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.engine.proposals import Source
    from napari_lightsam.engine.weights import LoadedModel


class Segmenter:
    """A loaded model on a device: embeds image planes and answers prompts.

    Made by `load_segmenter`. Safe to use from any thread; holds no image.

    Attributes
    ----------
    spec
        What the model is and how it is fed.
    weights_hash
        sha256 of the weights file.
    runtime
        Runs the network.
    source
        What other processes load it by: its name in the registry, or the absolute path of a checkpoint.
    """

    def __init__(self, spec: ModelSpec, runtime: Runtime, weights_hash: str, source: str = "") -> None:
        self.spec = spec
        self.runtime = runtime
        self.weights_hash = weights_hash
        self.source = source or spec.name

    @property
    def device(self) -> str:
        """`cpu`, `mps`, `cuda` or `cuda:N`."""
        return self.runtime.device.name

    @property
    def precision(self) -> str:
        """`float32`, `bfloat16`, `float16`, or `int8` (the encoder only)."""
        return self.runtime.device.precision

    @property
    def runtime_name(self) -> str:
        """`torch` or `openvino`."""
        return self.runtime.device.runtime

    @property
    def device_reason(self) -> str:
        """Why this device, runtime and precision, in one sentence."""
        return self.runtime.device.reason

    def embed(
        self,
        image: ImageArray,
        *,
        object_size: float | None = None,
        rgb: bool | None = None,
        normalization: Limits | None = None,
    ) -> Embedding:
        """Make an image plane ready for prompts.

        Parameters
        ----------
        image
            (H, W), or (H, W, C) with one to four samples; any real dtype. NaN and infinities count as
            background, with a warning. Read lazily: it must not change while the embedding is used.
        object_size
            Typical equivalent circular diameter, `2 * sqrt(area / pi)`, in pixels. It decides the scale
            at which the embedded model looks at the image; without it several scales are tried.
        rgb
            The last axis is colour. None: only for uint8 with 3 or 4 samples.
        normalization
            (low, high) mapped to 0 and 1, one pair a channel or one for all; None: from the data.

        Returns
        -------
        Embedding
            The scale of `object_size` is encoded when it fits one block of 1280 frame pixels; larger ones
            and other scales are encoded where a prompt needs them.

        Raises
        ------
        ImageError
            If the image is empty, complex, of objects, or not one plane.

        Examples
        --------
        >>> from napari_lightsam import load_segmenter
        >>> from napari_lightsam.samples import read_sample
        >>> segmenter = load_segmenter()
        >>> embedding = segmenter.embed(read_sample("nuclei_fluorescence"), object_size=26)
        >>> embedding.shape
        (520, 696)
        """
        embedding = self.lazy_embedding(image, object_size=object_size, rgb=rgb, normalization=normalization)
        level = self.level(embedding)
        if level.fixed or max(level.padded) <= BLOCK:  # larger planes are encoded where they are prompted
            encode_block(self.runtime, embedding, level, Block(0, 0, *level.padded), self.spec)
        return embedding

    def lazy_embedding(
        self,
        image: ImageArray,
        *,
        object_size: float | None = None,
        rgb: bool | None = None,
        normalization: Limits | None = None,
    ) -> Embedding:
        """Check and normalise a plane as `embed` does, but encode nothing yet."""
        check_size(object_size)
        plane = prepare_plane(image, rgb=rgb, limits=normalization)
        size = object_size if isinstance(self.spec.frame, ObjectFrame) else None
        return Embedding(plane, size, self.weights_hash)

    def level(self, embedding: Embedding, scale: float | None = None) -> Level:
        """Return the layout of an embedding at a scale; by default that of its object size."""
        if scale is None and isinstance(self.spec.frame, ObjectFrame):
            scale = pyramid(embedding, self.spec.frame)[0]
        return make_level(embedding.shape, self.spec, scale)

    def predict(
        self,
        embedding: Embedding,
        points: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask: ArrayLike | Mask | Masks | None = None,
        multimask: bool | None = None,
    ) -> Masks:
        """Answer the prompts of one or more objects.

        Parameters
        ----------
        embedding
            From `embed` of this segmenter.
        points
            (P, 2) of one object, or (N, P, 2) of N objects, as (row, column) in pixels.
        point_labels
            (P,) or (N, P): 1 positive, 0 negative, -1 padding; all positive by default.
        boxes
            (4,) or (N, 4) as (y0, x0, y1, x1), half-open.
        mask
            bool (H, W) or (N, H, W), or an earlier result.
        multimask
            Offer three readings instead of one. None: for a single click, and always for TinySAM.

        Returns
        -------
        Masks
            For each object its candidates, by falling predicted IoU.

        Raises
        ------
        PromptError
            If prompts do not fit the image or each other, or the embedding is another model's.

        Examples
        --------
        >>> from napari_lightsam import load_segmenter
        >>> from napari_lightsam.samples import read_sample
        >>> segmenter = load_segmenter()
        >>> embedding = segmenter.embed(read_sample("nuclei_fluorescence"), object_size=26)
        >>> masks = segmenter.predict(embedding, points=[(219, 383)])
        >>> masks.to_array().shape
        (1, 520, 696)
        """
        self._check_embedding(embedding)
        prompts = check_prompts(embedding.shape, points, point_labels, boxes, mask)
        return Masks(embedding.shape, answer(self, embedding, prompts, multimask))

    def everything(
        self,
        image: ImageArray | Embedding,
        config: EverythingConfig | None = None,
        *,
        rgb: bool | None = None,
        proposals: Source | None = None,
        stop: Callable[[], bool] | None = None,
        out: LabelArray | None = None,
    ) -> Generator[Progress, None, Segmentation]:
        """Segment every object of a plane; a generator of `Progress` that returns a `Segmentation`.

        Closing the generator drops everything; `stop` keeps what was found.

        Parameters
        ----------
        image
            As for `embed`, or an embedding.
        config
            Settings; None means the defaults.
        rgb
            As for `embed`.
        proposals
            Where objects are, instead of the config's mode; see
            `napari_lightsam.engine.proposals.as_proposals`.
        stop
            Asked before each batch of prompts; once it says True, the run ends with what it has, and the
            result's `complete` is False. A `published` run ends only by closing.
        out
            Integer array (H, W) to write the labels into, such as a zarr array larger than memory; it is
            written once, at the end.

        Raises
        ------
        ImageError
            If the image is not one plane, or a part of it cannot be read; the message names the part.
        PromptError
            If proposals are of no accepted form or do not fit the plane.
        ConfigError
            If `out` has another shape than the plane, holds no integers, or has no room for the ids.

        Examples
        --------
        >>> from napari_lightsam import EverythingConfig, load_segmenter
        >>> from napari_lightsam.engine.progress import drain
        >>> from napari_lightsam.samples import read_sample
        >>> image = read_sample("nuclei_fluorescence")[:256, :256]
        >>> work = load_segmenter().everything(image, EverythingConfig(object_size=26))
        >>> drain(work).labels.shape
        (256, 256)
        """
        from napari_lightsam.engine.everything import EverythingConfig, run_everything

        config = config or EverythingConfig()
        if not isinstance(image, Embedding):
            image = self.lazy_embedding(image, object_size=config.object_size, rgb=rgb)
            image = replace(image, cache=BlockCache(kept=1))  # nobody asks this embedding again
        self._check_embedding(image)
        if proposals is not None and not callable(proposals):
            proposals = as_proposals(proposals, image.plane.data)
        return run_everything(self, image, config, proposals=proposals, stop=stop, out=out)

    def estimate_object_size(self, image: ImageArray | Embedding, *, rgb: bool | None = None) -> float | None:
        """Estimate the typical object diameter of a plane in pixels; None when nothing was found.

        A coarse look at several scales; models with a fixed frame need no size and return None.
        """
        from napari_lightsam.engine.everything import estimate_size

        if not isinstance(image, Embedding):
            image = self.lazy_embedding(image, rgb=rgb)
        return estimate_size(self, image)

    def _check_embedding(self, embedding: Embedding) -> None:
        if not isinstance(embedding, Embedding):
            raise PromptError(
                f"An embedding is needed, made by embed(image); got {type(embedding).__name__}."
            )
        if embedding.model != self.weights_hash:
            raise PromptError(
                f"This embedding was made with other weights than {self.spec.name!r}; embed the image with "
                "the segmenter that is asked."
            )


def load_segmenter(
    name_or_path: str | os.PathLike[str] = "lightsam",
    *,
    device: str = "auto",
    precision: Precision = "auto",
    runtime: RuntimeName = "auto",
    cache: bool | str | os.PathLike[str] = False,
) -> Segmenter:
    """Load a model; never touches the network.

    Parameters
    ----------
    name_or_path
        A name from the registry (`lightsam models list`), or a checkpoint file.
    device
        `auto` (CUDA, then MPS, then CPU), `cpu`, `mps`, `cuda` or `cuda:N`.
    precision
        `auto` (bfloat16 on CPUs that compute in it, float16 on GPUs, checked against float32),
        `float32`, `bfloat16`, `float16`, or `int8` (the encoder only; after `lightsam quantize`).
    runtime
        `torch`, `openvino` (TinyViT models on the CPU), or `auto`: OpenVINO on the CPU where it is installed
        and computes the same as PyTorch, else PyTorch. `device_reason` says what was chosen and why.
    cache
        Keep embeddings on disk, so that an image seen before is ready at once: True for the user's cache
        folder, or a folder of your own; see `napari_lightsam.engine.store`.

    Returns
    -------
    Segmenter

    Raises
    ------
    WeightsError
        If the name is unknown, the weights are not on this machine, or the file is not a checkpoint.
    DeviceError
        If the device is not available, or OpenVINO was asked for and cannot run the model.
    ConfigError
        If a setting is not accepted, or int8 is asked for and the model was not quantised.

    Examples
    --------
    >>> load_segmenter().spec.name
    'lightsam'
    """
    from napari_lightsam.engine.starting import make_runtime
    from napari_lightsam.engine.store import with_store
    from napari_lightsam.engine.weights import load_model

    chosen: Device = choose_device(device, precision, runtime)
    loaded: LoadedModel = load_model(name_or_path if isinstance(name_or_path, str) else Path(name_or_path))
    started = make_runtime(loaded, chosen, precision, runtime)
    kept = with_store(started, cache, loaded.weights_hash)
    return Segmenter(loaded.spec, kept, loaded.weights_hash, loaded.reference)
