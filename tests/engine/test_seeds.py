"""Proposals: a point in every object, whatever its sign, place and the shape of the plane."""

import numpy as np
import pytest

from napari_lightsam.engine import level as levels
from napari_lightsam.engine.level import BlockReader
from napari_lightsam.engine.seeds import find_blobs
from napari_lightsam.engine.tile import Tile
from napari_lightsam.model.spec import ModelSpec


def proposals(segmenter, image, size, spec=None):
    """Blobs of all tiles of a plane, (N, 2)."""
    embedding = segmenter.lazy_embedding(image, object_size=size)
    level, spec = segmenter.level(embedding), spec or segmenter.spec
    reader = BlockReader(embedding.plane, level, spec)
    tiles = [Tile(segmenter.runtime, spec, embedding, level, block, reader) for block in level.block_list()]
    return np.concatenate([find_blobs(tile).points for tile in tiles])


def hit(points, truth):
    """Part of the true objects that hold a proposal."""
    at = np.clip(np.rint(points).astype(int), 0, np.array(truth.shape) - 1)
    ids = set(np.unique(truth[at[:, 0], at[:, 1]])) - {0}
    return len(ids) / len(set(np.unique(truth)) - {0})


@pytest.mark.parametrize(
    ("name", "size", "least"),
    [("nuclei_fluorescence", 24, 0.9), ("nuclei_tissue_16bit", 28, 0.8), ("axons_tem", 49, 0.7)],
)
def test_most_real_objects_hold_a_proposal(segmenter, sample, name, size, least):
    image, truth = sample(name)
    points = proposals(segmenter, image, size)
    assert hit(points, truth) >= least
    lattice = image.shape[0] * image.shape[1] * (48 / size) ** 2 / 16**2
    assert len(points) < lattice / 3  # few prompts are the point of it


def discs(shape, centres, radius, value=200, ground=20):
    y, x = np.ogrid[: shape[0], : shape[1]]
    image = np.full(shape, ground, np.uint8)
    for cy, cx in centres:
        image[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = value
    return image


@pytest.mark.parametrize("inverted", [False, True], ids=["bright on dark", "dark on bright"])
def test_objects_are_proposed_at_their_centres_in_either_contrast(segmenter, inverted):
    centres = [(40, 30), (40, 110), (100, 200), (2, 160)]  # the last one is cut by the border
    image = discs((130, 260), centres, 12)
    points = proposals(segmenter, 255 - image if inverted else image, 24)
    for centre in centres[:3]:
        assert np.linalg.norm(points - centre, axis=1).min() < 3
    assert np.linalg.norm(points - (4, 160), axis=1).min() < 8


def test_every_proposal_lies_inside_the_plane(segmenter, nuclei):
    image = np.asarray(nuclei[0])[:37, :91]
    points = proposals(segmenter, image, 24)
    assert len(points)
    assert (points > -0.5).all()
    assert (points < np.array(image.shape) - 0.5).all()


def test_a_constant_plane_has_no_proposal(segmenter):
    assert len(proposals(segmenter, np.full((64, 64), 7, np.uint8), 24)) == 0


def test_the_number_of_proposals_is_not_capped(segmenter):
    centres = [(y, x) for y in range(8, 640, 16) for x in range(8, 640, 16)]
    points = proposals(segmenter, discs((640, 640), centres, 5), 10)
    assert hit(points, np.asarray(discs((640, 640), centres, 5, 1, 0))) == 1
    assert len(points) >= len(centres)


def test_tiles_find_what_the_whole_plane_does(segmenter, sample, monkeypatch):
    image, _ = sample("nuclei_fluorescence")
    whole = proposals(segmenter, image, 24)  # 1040 x 1392 frame pixels
    monkeypatch.setattr(levels, "BLOCK", 2048)
    one = proposals(segmenter, image, 24)
    assert len(one) > 500
    same = {tuple(point) for point in whole.round(3)} & {tuple(point) for point in one.round(3)}
    assert len(same) >= 0.995 * max(len(one), len(whole))
    assert abs(len(one) - len(whole)) <= 2


def test_models_without_an_object_size_get_proposals_too(segmenter, nuclei):
    fixed = ModelSpec("fixed", "Fixed")
    embedding = segmenter.lazy_embedding(nuclei[0])
    level = levels.make_level(embedding.shape, fixed)
    tile = Tile(
        segmenter.runtime,
        fixed,
        embedding,
        level,
        *level.block_list(),
        BlockReader(embedding.plane, level, fixed),
    )
    assert hit(find_blobs(tile).points, nuclei[1]) > 0.8
