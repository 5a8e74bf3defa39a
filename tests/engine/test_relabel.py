"""Label images of other programs as proposals: ids are kept, whatever the image's size."""

import numpy as np
import pytest

from napari_lightsam.engine import relabel
from napari_lightsam.engine.relabel import from_labels, from_nuclei
from napari_lightsam.errors import PromptError


@pytest.fixture
def labels():
    image = np.zeros((90, 120), np.int32)
    image[10:30, 10:31] = 4
    image[10:30, 40:61] = 2_000_000_000
    image[60:80, 12:33] = 9
    image[85:87, 100:103] = 9  # a crumb of object 9
    return image


def test_boxes_points_and_masks_are_those_of_each_objects_largest_part(labels):
    found = from_labels(labels)
    assert found.ids.tolist() == [4, 9, 2_000_000_000]
    assert found.boxes.tolist() == [[10, 10, 30, 31], [60, 12, 80, 33], [10, 40, 30, 61]]
    assert (found.points[:, 0] - found.boxes[:, :2]).tolist() == [[9, 10]] * 3
    assert found.masks is None
    assert from_labels(labels, "box").points.shape == (3, 0, 2)
    assert from_labels(labels, "point").boxes is None
    assert [mask.area for mask in from_labels(labels, "mask").masks] == [420, 420, 420]


def test_strips_give_what_the_whole_image_does(labels, monkeypatch):
    whole = from_labels(labels)
    monkeypatch.setattr(relabel, "_STRIP_PIXELS", 7 * 120)
    strips = from_labels(labels)
    np.testing.assert_array_equal(strips.boxes, whole.boxes)
    np.testing.assert_array_equal(strips.ids, whole.ids)


def test_a_nucleus_lies_inside_its_cell_and_its_neighbours_outside(labels):
    found = from_nuclei(labels, neighbours=1)
    assert found.ids.tolist() == [4, 9, 2_000_000_000]
    assert found.labels.tolist() == [[1, 0]] * 3
    assert found.boxes is None
    np.testing.assert_array_equal(found.points[0, 1], found.points[2, 0])  # 4's nearest is the one beside it
    assert from_nuclei(labels, neighbours=4).points.shape == (3, 3, 2)
    assert from_nuclei(np.where(labels == 4, 4, 0), neighbours=4).labels.tolist() == [[1]]
    assert from_nuclei(labels).labels.tolist() == [[1]] * 3
    assert len(from_nuclei(np.zeros((5, 5), int))) == 0


def test_an_id_beyond_what_labels_can_hold_is_refused_in_words(labels):
    far = np.where(labels == 9, 2**63 + 5, labels.astype(np.uint64))
    with pytest.raises(PromptError, match="between 1 and"):
        from_labels(far)


def test_what_is_no_label_image_is_refused(labels):
    with pytest.raises(PromptError, match="integers"):
        from_labels(labels.astype(float))
    with pytest.raises(PromptError, match="integers"):
        from_nuclei(np.zeros((2, 3, 4), int))
    with pytest.raises(PromptError, match="use must be"):
        from_labels(labels, "outline")
