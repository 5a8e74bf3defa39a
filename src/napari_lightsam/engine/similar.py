"""More objects like one: places whose embedding resembles that inside a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from napari_lightsam.engine.level import BlockReader
from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.engine.prompts import check_prompts
from napari_lightsam.engine.scales import scales_for
from napari_lightsam.engine.tile import Tile
from napari_lightsam.errors import PromptError
from napari_lightsam.model.spec import ObjectFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_lightsam.engine.level import Embedding, Level
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.segmenter import Segmenter

    Points = NDArray[np.float64]
    Tokens = NDArray[np.float32]

_TOKEN = 4  # mask logits a token, on either side
_APART = 0.5  # of the object's diameter: nearer peaks are one object


def find_similar(
    segmenter: Segmenter, embedding: Embedding, mask: Mask, *, similarity: float = 0.75
) -> Work[Points]:
    """Find places that look like an object; each can be the point prompt of another one.

    Parameters
    ----------
    segmenter, embedding
        Model and plane.
    mask
        The object.
    similarity
        Least cosine similarity with the mean embedding inside of the object, as a part of what the object
        itself has on average.

    Returns
    -------
    (N, 2)
        (row, column) in pixels, most similar first; the object itself is left out.

    Raises
    ------
    PromptError
        The mask is empty or does not fit the plane.

    Examples
    --------
    >>> from napari_lightsam import drain, load_segmenter
    >>> from napari_lightsam.samples import read_sample
    >>> segmenter = load_segmenter()
    >>> embedding = segmenter.embed(read_sample("nuclei_fluorescence")[150:300, 200:350], object_size=26)
    >>> mask = segmenter.predict(embedding, points=[(129, 86)]).best(0)
    >>> len(drain(find_similar(segmenter, embedding, mask))) > 3
    True
    """
    prompts = check_prompts(embedding.shape, mask=mask)
    frame, scale = segmenter.spec.frame, None
    if isinstance(frame, ObjectFrame):
        scale = scales_for(embedding, prompts, frame, segmenter.spec.window or 0)[0][0]
    level = segmenter.level(embedding, scale)
    inside = mask.to_array(embedding.shape)
    own: list[Tokens] = []
    for tile in _tiles(segmenter, embedding, level):
        yield Progress("looking at the object", 0, 0)
        if _reaches(tile, mask):
            tokens, at = _tokens(tile)
            row, column = np.rint(at).astype(int).T
            own.append(tokens[:, inside[row, column] & tile.owns(at)])
    found = np.concatenate(own, axis=1)
    if not found.shape[1]:
        raise PromptError("The object is too small at this scale to look for others like it.")
    wanted = _unit(found.mean(axis=1))
    least = similarity * float((wanted @ found).mean())
    points, scores = [np.zeros((0, 2))], [np.zeros(0)]
    blocks = level.block_list()
    for done, tile in enumerate(_tiles(segmenter, embedding, level)):
        yield Progress("looking for similar objects", done, len(blocks))
        at, score = _peaks(tile, wanted, least)
        points.append(at)
        scores.append(score)
    return _spread(np.concatenate(points), np.concatenate(scores), inside, _APART * mask.diameter)


def _tiles(segmenter: Segmenter, embedding: Embedding, level: Level) -> Iterator[Tile]:
    reader = BlockReader(embedding.plane, level, segmenter.spec)
    for block in level.block_list():
        yield Tile(segmenter.runtime, segmenter.spec, embedding, level, block, reader)


def _reaches(tile: Tile, mask: Mask) -> bool:
    """Tell whether a tile's own part may hold a token of a mask."""
    low, high = (np.array(corner) * tile.level.scale for corner in (mask.box[:2], mask.box[2:]))
    return bool((low < tile.own[2:]).all() and (high > tile.own[:2]).all())


def _tokens(tile: Tile) -> tuple[Tokens, Points]:
    """Return the tokens of a tile as unit vectors (C, n), and where they are in image pixels (n, 2)."""
    tokens = np.asarray(tile.tokens()[0].float().cpu().numpy())
    rows, columns = np.mgrid[: tokens.shape[1], : tokens.shape[2]]
    logits = np.stack([rows.ravel(), columns.ravel()], axis=1) * _TOKEN + (_TOKEN - 1) / 2
    return _unit(tokens.reshape(len(tokens), -1)), tile.to_image(logits)


def _unit(vectors: Tokens) -> Tokens:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=0), 1e-6), np.float32)


def _peaks(tile: Tile, wanted: Tokens, least: float) -> tuple[Points, Points]:
    """Return the local maxima of similarity in a tile's own part, and their similarity."""
    shape = tuple(tile.tokens().shape[2:])
    tokens, at = _tokens(tile)
    score = wanted @ tokens
    peak = score.reshape(shape) == ndimage.maximum_filter(score.reshape(shape), 3)
    chosen = peak.ravel() & (score >= least) & tile.owns(at)
    return at[chosen], score[chosen].astype(np.float64)


def _spread(points: Points, scores: Points, inside: NDArray[np.bool_], apart: float) -> Points:
    """Keep the best of points that are near each other, and none in the object itself."""
    row, column = np.rint(points).astype(int).T
    outside = ~inside[row, column]
    points, scores = points[outside], scores[outside]
    points = points[np.argsort(-scores, kind="stable")]
    if not len(points):
        return points
    kept = np.ones(len(points), bool)
    for i, near in enumerate(KDTree(points).query_ball_point(points, apart)):
        if kept[i]:
            kept[[j for j in near if j > i]] = False
    return points[kept]
