"""COCO JSON, read back by pycocotools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from napari_lightsam.formats.coco import encode_runs
from napari_lightsam.formats.export import write_objects
from napari_lightsam.formats.objects import Objects, Position

if TYPE_CHECKING:
    from pathlib import Path


def drawn(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Draw what pycocotools reads, and check all it says of each object."""
    coco = COCO(str(path))
    labels = np.zeros(shape, np.int32)
    for annotation in coco.dataset["annotations"]:
        mask = coco.annToMask(annotation).astype(bool)
        rle = annotation["segmentation"]
        y, x = np.nonzero(mask)
        assert coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() == rle["counts"]
        assert annotation["area"] == mask.sum() == coco_mask.area(rle)
        assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
        labels[annotation["image_id"] - 1][mask] = annotation["label"]
    return labels


def test_pycocotools_draws_every_object_and_packs_it_as_we_do(tmp_path: Path, awkward: np.ndarray) -> None:
    write_objects(tmp_path / "a.json", Objects(awkward, name="cells.tif"))

    np.testing.assert_array_equal(drawn(tmp_path / "a.json", (1, *awkward.shape))[0], awkward)
    content = json.loads((tmp_path / "a.json").read_text())
    height, width = awkward.shape
    assert content["images"] == [{"id": 1, "file_name": "cells.tif", "width": width, "height": height}]
    assert [a["id"] for a in content["annotations"]] == list(range(1, 9))


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_packed_as_pycocotools_packs_it(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (6, *rng.integers(1, 9, 2)))
    write_objects(tmp_path / "a.json", Objects(labels))

    np.testing.assert_array_equal(drawn(tmp_path / "a.json", labels.shape), labels)


def test_long_runs_are_packed_as_pycocotools_packs_them(tmp_path: Path) -> None:
    labels = np.zeros((1500, 1200), np.uint8)
    labels[:, 3:900] = 1
    labels[700, 1100] = 1
    labels[5:1400, 950:1000] = 2
    write_objects(tmp_path / "a.json", Objects(labels))

    np.testing.assert_array_equal(drawn(tmp_path / "a.json", (1, *labels.shape))[0], labels)


def test_planes_are_images_and_scores_are_kept(tmp_path: Path) -> None:
    table = pd.DataFrame({"label": [1, 1], "z": [0, 1], "score": [0.25, np.nan]})
    labels = np.ones((2, 2, 3), int)
    write_objects(tmp_path / "a.json", Objects(labels, table=table, position=Position(t=4)))

    content = json.loads((tmp_path / "a.json").read_text())
    assert [(i["id"], i["z"], i["t"]) for i in content["images"]] == [(1, 0, 4), (2, 1, 4)]
    assert [a.get("score") for a in content["annotations"]] == [0.25, None]
    assert [a["id"] for a in content["annotations"]] == [1, 2]


def test_70_000_objects_are_packed(tmp_path: Path, many: np.ndarray) -> None:
    write_objects(tmp_path / "a.json", Objects(many))

    annotations = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert [a["label"] for a in annotations] == list(range(1, 70_226))
    assert {int(coco_mask.area(a["segmentation"])) for a in annotations} == {33}
    for one in annotations[:: len(annotations) // 5]:
        x, y, width, height = one["bbox"]
        box = coco_mask.decode(one["segmentation"])[y : y + height, x : x + width]
        np.testing.assert_array_equal(box, many[y : y + height, x : x + width] == one["label"])


def test_no_objects_are_no_annotations() -> None:
    ids, counts, splits, boxes, areas = encode_runs(np.zeros((3, 4), int))

    assert [len(a) for a in (ids, counts, boxes, areas)] == [0, 0, 0, 0]
    assert splits.tolist() == [0]
