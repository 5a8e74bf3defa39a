"""Eight-bit weights and activations for the encoder, judged against float32 before anything uses them."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.openvino import OpenVinoRuntime, load_silently
from napari_lightsam.engine.openvino_encoder import encoder_graph
from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.engine.quantized import FILE, store_quantized
from napari_lightsam.engine.segmenter import Segmenter
from napari_lightsam.engine.weights import load_model
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.images import read_image
from napari_lightsam.samples import SAMPLES, read_sample
from napari_lightsam.train.datasets import SUFFIXES, LabelledFile, find_labelled, read_labelled
from napari_lightsam.train.evaluate import evaluate
from napari_lightsam.train.metrics import innermost_point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.runtime import Runtime
    from napari_lightsam.engine.weights import LoadedModel

__all__ = ["LEAST_MEAN", "LEAST_WORST", "Quantization", "quantize"]

LEAST_MEAN, LEAST_WORST = 0.98, 0.90
"""Mask IoU with float32 that an int8 encoder needs: mean over images, and of every single image."""

_CLICKS = 24  # per image
_LATTICE = 4  # clicks per side where there is no ground truth
_FRAMES = 24  # for calibration
_TILE = 256  # side of these: the smallest frame that there is
_SIDE = 512  # of what is looked at in an image without ground truth
_TIMED = 7


@dataclass(frozen=True, slots=True)
class Quantization:
    """What became of one quantisation.

    Attributes
    ----------
    model, weights_hash
        Name, and sha256 of the weights.
    images, frames
        Images compared, and frames calibrated on.
    float_bytes, int8_bytes
        Sizes of the encoder's weights.
    mean_iou, worst_iou, worst_image
        Mask IoU with float32, one click per object: mean over images, and the image where it is lowest.
    ap_change
        Change of AP at IoU .5 of everything mode against the ground truth, int8 minus float32; None
        without ground truth.
    speed
        Time of the encoder in the usual precision over its time in int8.
    saved
        Where the int8 encoder was saved; None when it was not good enough.
    """

    model: str
    weights_hash: str
    images: int
    frames: int
    float_bytes: int
    int8_bytes: int
    mean_iou: float
    worst_iou: float
    worst_image: str
    ap_change: float | None
    speed: float
    saved: Path | None = None

    @property
    def problem(self) -> str:
        """Why it is not good enough, or ""."""
        problems = []
        if not self.mean_iou >= LEAST_MEAN:  # true for NaN as well
            problems.append(
                f"its masks agree with float32 to an IoU of {self.mean_iou:.3f}, not {LEAST_MEAN}"
            )
        if not self.worst_iou >= LEAST_WORST:
            problems.append(f"on {self.worst_image} only to {self.worst_iou:.3f}, not {LEAST_WORST}")
        if self.speed <= 1:
            problems.append(f"it is no faster ({self.speed:.2f} times the usual speed)")
        return "; ".join(problems)

    def to_text(self) -> str:
        """Return a few lines for people."""
        lines = [
            f"{self.model}: encoder of {self.float_bytes / 1e6:.1f} MB in float32, "
            f"{self.int8_bytes / 1e6:.1f} MB in int8",
            f"mask IoU with float32 over {self.images} images: mean {self.mean_iou:.3f}, worst "
            f"{self.worst_iou:.3f} ({self.worst_image})",
            f"speed of the encoder: {self.speed:.2f} times the usual precision's",
        ]
        if self.ap_change is not None:
            lines.insert(2, f"AP at IoU .5 against the ground truth: {self.ap_change:+.3f}")
        if self.saved is not None:
            lines.append(f"saved as {self.saved}; use it with precision='int8'")
        else:
            lines.append(f"not saved: {self.problem}. --force saves it all the same")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """One image with the clicks to compare on."""

    name: str
    image: NDArray[Any]
    rgb: bool | None
    object_size: float | None
    clicks: NDArray[np.float64]  # (N, 1, 2)


def quantize(
    model: str | Path = "lightsam",
    data: str | Path | None = None,
    *,
    limit: int = 12,
    force: bool = False,
) -> Work[Quantization]:
    """Quantise a model's encoder to int8, compare it with float32 and keep it if it is good enough.

    Parameters
    ----------
    model
        As for `load_segmenter`; a model with a TinyViT encoder.
    data
        Folder of images, with ground truth in a layout of `napari_lightsam.train.datasets` or without;
        None for the bundled samples. Calibrate on images like those that you segment.
    limit
        At most this many images, evenly spaced.
    force
        Keep it whatever the comparison says.

    Yields
    ------
    Progress
        One step per image.

    Returns
    -------
    Quantization

    Raises
    ------
    ConfigError
        NNCF is not installed.
    DeviceError
        OpenVINO cannot run the model here.
    FileError
        No images in the folder, or the cache folder cannot be written.

    Examples
    --------
    >>> from napari_lightsam.engine.progress import drain
    >>> print(drain(quantize("lightsam", "my_images")).to_text())  # doctest: +SKIP
    """
    nncf = _load_nncf()
    loaded = load_model(model)
    precise = OpenVinoRuntime(loaded, "float32")
    recorder = _Recorder(precise)
    files = None if data is None else _find(Path(data), limit)
    expected: list[list[Mask]] = []
    for number, case in enumerate(_cases(files, limit)):
        yield Progress(f"reference: {case.name}", number, limit)
        expected.append(_masks(Segmenter(loaded.spec, recorder, loaded.weights_hash), case))
    yield Progress("quantising", 0, 1)
    with tempfile.TemporaryDirectory(prefix="lightsam-", ignore_cleanup_errors=True) as folder:
        write = _quantized(nncf, loaded, recorder.frames)
        write(Path(folder))
        coarse = OpenVinoRuntime(loaded, "int8", Path(folder) / FILE)
        found = Segmenter(loaded.spec, coarse, loaded.weights_hash)
        agreements: list[tuple[float, str]] = []  # images of two sets may share a name
        for number, case in enumerate(_cases(files, limit)):
            yield Progress(f"int8: {case.name}", number, len(expected))
            agreements.append((_agreement(expected[number], _masks(found, case)), case.name))
        yield Progress("timing", 0, 1)
        worst_iou, worst_image = min(agreements)
        result = Quantization(
            model=loaded.spec.name,
            weights_hash=loaded.weights_hash,
            images=len(agreements),
            frames=len(recorder.frames),
            float_bytes=4 * sum(p.numel() for p in loaded.model.image_encoder.parameters()),
            int8_bytes=(Path(folder) / FILE).with_suffix(".bin").stat().st_size,
            mean_iou=float(np.mean([iou for iou, _ in agreements])),
            worst_iou=worst_iou,
            worst_image=worst_image,
            ap_change=(yield from _ap_change(data, files, loaded, (precise, coarse), limit)),
            speed=_speed(loaded, coarse, recorder.frames[0]),
        )
    return _keep(result, write, force)


def _keep(result: Quantization, write: Callable[[Path], None], force: bool) -> Quantization:
    if result.problem and not force:
        return result
    try:
        return replace(result, saved=store_quantized(result.weights_hash, write))
    except (OSError, RuntimeError) as error:  # OpenVINO's writer raises the latter
        raise FileError(
            f"The int8 encoder cannot be saved in the cache folder: {error}. Set LIGHTSAM_CACHE."
        ) from error


def _load_nncf() -> Any:
    try:
        nncf = load_silently("nncf")
    except ImportError as error:
        raise ConfigError(
            f"Quantising needs NNCF, which cannot be used here ({error}). Install it with "
            "`python -m pip install nncf`."
        ) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


class _Recorder:
    """Runs a runtime and keeps tiles of what the encoder is shown, all of one size as NNCF needs them."""

    def __init__(self, runtime: Runtime) -> None:
        self.device, self._runtime = runtime.device, runtime
        self.frames: list[FloatArray] = []
        self.propose, self.decode = runtime.propose, runtime.decode

    def encode(self, frame: FloatArray) -> Any:
        """Embed one frame, as `Runtime.encode`."""
        for corner in {(0, 0), tuple(max(side - _TILE, 0) // 2 for side in frame.shape[1:])}:
            if len(self.frames) < _FRAMES:
                y, x = corner
                self.frames.append(frame[:, y : y + _TILE, x : x + _TILE].copy())
        return self._runtime.encode(frame)


def _quantized(nncf: Any, loaded: LoadedModel, frames: list[FloatArray]) -> Callable[[Path], None]:
    """Quantise; returns what writes the result into a folder."""
    openvino = load_silently("openvino")
    encoder = encoder_graph(openvino, loaded.model.image_encoder)
    quantized = nncf.quantize(
        encoder,
        nncf.Dataset([frame[None] for frame in frames]),
        subset_size=len(frames),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        # NNCF would scale the input of a depth-wise convolution by channel, but mistakes the rows of tokens
        # for channels; these convolutions are few of the products, and stay in float.
        ignored_scope=nncf.IgnoredScope(types=["GroupConvolution"]),
    )

    def write(folder: Path) -> None:
        openvino.save_model(quantized, folder / FILE, compress_to_fp16=False)

    return write


def _find(folder: Path, limit: int) -> tuple[LabelledFile, ...] | tuple[Path, ...]:
    """Images with ground truth where there are any, else images."""
    try:
        files = find_labelled(folder)
    except FileError:
        images = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if not images:
            raise
        return tuple(images[index] for index in _spaced(len(images), limit))
    return tuple(files[index] for index in _spaced(len(files), limit))


def _spaced(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [index * count // most for index in range(most)]


def _cases(files: tuple[LabelledFile, ...] | tuple[Path, ...] | None, limit: int) -> Iterator[_Case]:
    """Read the images one by one."""
    if files is None:
        for name in list(SAMPLES)[:limit]:
            image = read_sample(name)
            rgb = image.ndim == 3 and image.shape[-1] == 3
            yield _lattice(name, image if image.ndim == 2 or rgb else image[0], rgb or None)
        return
    for file in files:
        if isinstance(file, Path):
            stored = read_image(file)
            image, rgb = stored.plane(tuple(range(stored.n_channels)) if stored.n_channels > 1 else None)
            yield _lattice(file.name, image, rgb or None)
            continue
        labelled = read_labelled(file)
        ids, areas = np.unique(labelled.labels[labelled.labels > 0], return_counts=True)
        if len(ids) == 0:
            continue
        clicks = [_middle(labelled.labels == ids[index]) for index in _spaced(len(ids), _CLICKS)]
        size = float(2 * np.sqrt(np.median(areas) / np.pi))
        yield _Case(file.name, labelled.image, labelled.rgb, size, np.array(clicks, float)[:, None])


def _middle(thing: NDArray[np.bool_]) -> tuple[int, int]:
    rows, columns = np.nonzero(thing.any(axis=1))[0], np.nonzero(thing.any(axis=0))[0]
    row, column = innermost_point(thing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return int(rows[0] + row), int(columns[0] + column)


def _lattice(name: str, image: NDArray[Any], rgb: bool | None) -> _Case:
    top, left = (max(side - _SIDE, 0) // 2 for side in image.shape[:2])
    image = image[top : top + _SIDE, left : left + _SIDE]
    steps = (np.arange(_LATTICE) + 0.5) / _LATTICE
    clicks = np.stack(np.meshgrid(steps * image.shape[0], steps * image.shape[1], indexing="ij"), axis=-1)
    return _Case(name, image, rgb, None, clicks.reshape(-1, 1, 2))


def _masks(segmenter: Segmenter, case: _Case) -> list[Mask]:
    embedding = segmenter.embed(case.image, object_size=case.object_size, rgb=case.rgb)
    masks = segmenter.predict(embedding, points=case.clicks)
    return [masks.best(index) for index in range(len(case.clicks))]


def _agreement(expected: list[Mask], found: list[Mask]) -> float:
    # Two empty masks agree.
    return float(np.mean([a.iou_with(b) if a.area or b.area else 1.0
                          for a, b in zip(expected, found, strict=True)]))  # fmt: skip


def _ap_change(
    data: str | Path | None,
    files: tuple[Any, ...] | None,
    loaded: LoadedModel,
    runtimes: tuple[Runtime, Runtime],
    limit: int,
) -> Work[float | None]:
    """AP at IoU .5 of the second runtime minus that of the first, where there is ground truth."""
    if data is None or not files or not isinstance(files[0], LabelledFile):
        return None
    scores = []
    for runtime in runtimes:
        segmenter = Segmenter(loaded.spec, runtime, loaded.weights_hash)
        result = yield from evaluate(
            data, segmenter, limit=limit, object_size="true", prompts=("everything",)
        )
        scores.append(result.overall.ap50)
    before, after = scores
    return None if before is None or after is None else after - before


def _speed(loaded: LoadedModel, coarse: OpenVinoRuntime, frame: FloatArray) -> float:
    """Time of the usual precision over that of int8, each the best of several that alternate."""
    runtimes = (OpenVinoRuntime(loaded), coarse)
    frame = np.tile(frame, (1, 2, 2))
    best = [float("inf")] * 2
    for _ in range(_TIMED):
        for index, runtime in enumerate(runtimes):
            start = time.perf_counter()
            runtime.encode(frame)
            best[index] = min(best[index], time.perf_counter() - start)
    return best[0] / best[1]
