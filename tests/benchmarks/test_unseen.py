"""Each sample is a set of its own, with the ground truth of the tests, and a row of its own."""

from benchmarks.unseen import lay_out, to_markdown

from napari_lightsam.samples import SAMPLES
from napari_lightsam.train.datasets import find_labelled, read_labelled


def test_every_sample_is_a_set_with_ground_truth(tmp_path):
    lay_out(tmp_path, list(SAMPLES))
    files = find_labelled(tmp_path)
    assert {file.dataset for file in files} == set(SAMPLES)
    assert sum(file.dataset == "neurites_fibsem_3d" for file in files) == 25
    axons = read_labelled(next(file for file in files if file.dataset == "axons_tem"))
    assert axons.image.shape == axons.labels.shape
    assert axons.labels.max() > 50


def test_the_table_has_a_row_per_kind_with_the_figures_of_both_sizes():
    figures = {"ap50": 0.5, "msa": 0.2, "click_miou": 0.6, "corrected_miou": 0.8, "box_miou": 0.7}
    row = figures | {"objects": 56, "prompted_calibration": {"mean_absolute_error": 0.123}}
    found = {size: {"sets": {"axons_tem": row}} for size in ("estimated", "true")}
    lines = to_markdown(found, {"axons_tem": "Axons"}).splitlines()
    assert lines[0].startswith("| kind | objects | estimated: AP .5 | estimated: mSA |")
    assert lines[2] == f"| Axons | 56 | {' | '.join(['0.50 | 0.20 | 0.60 | 0.80 | 0.70'] * 2)} | 0.12 |"
