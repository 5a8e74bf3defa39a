"""A picture of what a model answers on validation crops, beside the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from napari_lightsam.model.spec import LOGIT_STRIDE
from napari_lightsam.train.prompting import ask_centres
from napari_lightsam.train.step import answer_again, decode_asked, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from napari_lightsam.model.sam import Sam
    from napari_lightsam.train.crops import Batch
    from napari_lightsam.train.prompting import Asked

TRUTH, ANSWER = (240, 228, 66), (0, 190, 255)
"""Colours of outlines: yellow for the truth, blue for the answer."""

_CLICKS = {1: (255, 255, 255), 0: (230, 40, 40)}
_CROPS = 6
_OBJECTS = 12  # of a crop are asked for
_CORRECTIONS = 3
_SIDE = 384  # pixels of a crop that are shown at most
_GAP = 4


@torch.no_grad()
def draw_answers(model: Sam, batches: Sequence[Batch]) -> npt.NDArray[np.uint8]:
    """Draw a crop a row: answers to one click on the left, after three corrective clicks on the right.

    Parameters
    ----------
    model
        In evaluation mode.
    batches
        Fixed crops; the first with objects of each batch is shown, six at most.

    Returns
    -------
    (H, W, 3)
        White where nothing is shown. Truth is outlined yellow, answers blue; clicks are white, negative
        ones red.
    """
    shown = [batch for batch in batches if len(batch.objects.crop)][:_CROPS]
    if not shown:
        return _blank(_SIDE, 2 * _SIDE + _GAP)
    side = min(_SIDE, max(batch.frames.shape[-1] for batch in shown))
    rows = [_draw_crop(model, batch, number, side) for number, batch in enumerate(shown)]
    return np.concatenate([part for row in rows for part in (row, _blank(_GAP, row.shape[1]))][:-1])


def _draw_crop(model: Sam, batch: Batch, number: int, side: int) -> npt.NDArray[np.uint8]:
    generator = torch.Generator(batch.frames.device).manual_seed(number)
    crop = int(batch.objects.crop[0])
    objects = torch.nonzero(batch.objects.crop == crop).flatten()[:_OBJECTS]
    asked = ask_centres(batch, objects)
    local = asked.cut(encode(model, batch))
    logits, iou = decode_asked(model, local, asked, None)
    halves = []
    for corrections in range(_CORRECTIONS + 1):
        again, best = answer_again(asked, logits, iou, generator)
        if corrections in (0, _CORRECTIONS):
            halves.append(_draw(batch, crop, asked, best, side))
        if corrections < _CORRECTIONS:
            asked = again
            logits, iou = decode_asked(model, local, asked, best)
    return np.concatenate([halves[0], _blank(side, _GAP), halves[1]], axis=1)


def _draw(batch: Batch, crop: int, asked: Asked, best: Tensor, side: int) -> npt.NDArray[np.uint8]:
    frame = batch.frames[crop].float().cpu().numpy().transpose(1, 2, 0)
    low, high = np.percentile(frame, (0.5, 99.5))
    canvas = ((frame - low) / max(float(high - low), 1e-6) * 255).clip(0, 255).astype(np.uint8)
    labels = batch.labels[crop].cpu().numpy()
    canvas[(labels > 0) & (ndimage.grey_erosion(labels, 3) != ndimage.grey_dilation(labels, 3))] = TRUTH
    masks = F.interpolate(best, scale_factor=LOGIT_STRIDE, mode="bilinear")[:, 0].cpu().numpy() > 0
    corners = asked.corners.tolist()
    for mask, (y, x) in zip(masks, corners, strict=True):
        part = canvas[y : y + asked.window, x : x + asked.window]
        part[mask & ~ndimage.binary_erosion(mask)] = ANSWER
    for points, kinds, (y, x) in zip(
        asked.points.tolist(), asked.point_labels.tolist(), corners, strict=True
    ):
        for (column, row), kind in zip(points, kinds, strict=True):
            at_y, at_x = int(row) + y, int(column) + x
            canvas[max(at_y - 1, 0) : at_y + 2, max(at_x - 1, 0) : at_x + 2] = _CLICKS[kind]
    shown = _blank(side, side)
    seen = canvas[:side, :side]
    shown[: seen.shape[0], : seen.shape[1]] = seen
    return shown


def _blank(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), 255, np.uint8)
