"""Volumes with ground truth: what linked slices make of them is measured in three dimensions."""

import numpy as np
from benchmarks.stack import VolumeScore, count_confused, neurites, nuclei_volume, score_volume, to_markdown

from napari_lightsam.train.metrics import find_overlaps, match


def test_the_synthetic_volume_holds_separate_nuclei_of_the_size_asked_for():
    image, labels = nuclei_volume((24, 128, 128), diameter=26, wanted=20)
    assert image.shape == labels.shape == (24, 128, 128)
    assert labels.max() > 5
    assert image[labels > 0].mean() > 3 * image[labels == 0].mean()
    widest = max(np.bincount(plane.ravel())[1:].max(initial=0) for plane in labels)
    assert 20 < 2 * np.sqrt(widest / np.pi) < 32
    assert match(labels, nuclei_volume((24, 128, 128), wanted=20)[1])[-1].average_precision == 1


def test_the_table_has_a_row_for_each_volume():
    table = to_markdown({"nuclei": VolumeScore(9, 8, 0.5, 0.25, 0.75, 0.6, 2, 1, 0.125, 3.0)})
    assert table.splitlines()[-1] == "| nuclei | 9 | 8 | 0.50 | 0.25 | 0.75 | 2 | 1 | 0.60 | 12% | 3 s |"


def test_split_and_merged_objects_are_counted():
    truth = np.repeat([1, 2, 3, 4, 0], 10)
    found = np.repeat([1, 2, 5, 5, 5, 6], [10, 5, 5, 10, 10, 10])  # 2 is split; 5 swallows 3 and 4
    assert count_confused(find_overlaps(truth, found)) == (1, 1)
    assert count_confused(find_overlaps(truth, truth)) == (0, 0)


def test_synthetic_nuclei_are_found_as_objects_of_the_volume(segmenter):
    image, labels = nuclei_volume((6, 128, 128), wanted=12)
    score = score_volume(image, labels, segmenter, object_size=26)
    assert score.true > 4
    assert score.found <= 2 * score.true
    assert score.ap50 > 0.2


def test_neurites_are_compared_with_their_ground_truth(segmenter, development):
    image, labels = neurites(development("data/neuroproof"))
    assert len(image) == 40
    score = score_volume(image[:3, :128, :128], labels[:3, :128, :128], segmenter, object_size=30)
    assert score.true > 5
    assert 0 <= score.ap50 <= 1
    assert score.iou > 0.05
