"""No field, animal, movie or volume lies on two sides, in known sets and in others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_lightsam.train.datasets import LabelledFile
from napari_lightsam.train.splits import group_of, is_validation, split_set


def files_of(names, dataset="mine", planes=None):
    return [
        LabelledFile(dataset, Path(f"{name}.tif"), Path(f"{name}_labels.tif"), plane, planes or 1)
        for name in names
        for plane in ([None] if planes is None else range(planes))
    ]


def test_the_md5_rule_keeps_about_fifteen_in_a_hundred_and_never_changes():
    names = [f"image{n}" for n in range(1000)]
    kept = [name for name in names if is_validation("dsb2018", name)]
    assert 110 < len(kept) < 190
    assert kept[:3] == ["image4", "image5", "image13"]


@pytest.mark.parametrize(
    ("dataset", "stem", "expected"),
    [
        ("usiigaci", "train-set41_set41", True),
        ("usiigaci", "train-set4_set4", False),
        ("bitdepth_nuclei", "bone_20x-bone_20x_2", True),
        ("bitdepth_nuclei", "heart_20x-heart_20x_1", False),
        ("axon_sem", "sub-rat7_sub-rat7_sample-Maxo03img60_SEM", True),
        ("axon_sem", "sub-rat3_sub-rat3_sample-data9_SEM", False),
    ],
)
def test_sets_of_related_images_are_split_by_field_tissue_or_animal(dataset, stem, expected):
    assert is_validation(dataset, stem) is expected


def test_a_volume_keeps_its_last_fifth_for_validation_and_halves_it():
    slices = [LabelledFile("neuroproof", Path("image.tif"), Path("labels.tif"), z, 200) for z in range(200)]
    parts = split_set(slices)
    assert parts == ["training"] * 160 + ["tuning"] * 20 + ["reporting"] * 20


def test_training_and_the_two_halves_of_validation_share_no_image():
    files = [LabelledFile("dsb2018", Path(f"{n}.png"), Path(f"{n}.png")) for n in range(500)]
    parts = split_set(files)
    kept = [is_validation("dsb2018", file.name) for file in files]
    assert [part != "training" for part in parts] == kept
    assert min(parts.count(part) for part in ("training", "tuning", "reporting")) > 20


@given(
    st.lists(st.sampled_from([f"mouse{m}_{f}" for m in range(12) for f in range(5)]), min_size=2, unique=True)
)
def test_files_of_one_group_stay_together_and_something_is_left_to_train_and_to_check_on(names):
    files = files_of(sorted(names))
    parts = split_set(files)
    assert {"training", "tuning"} <= set(parts)
    sides = {(group_of(file), part) for file, part in zip(files, parts, strict=True)}
    if len({group for group, _ in sides}) > 1:
        assert len(sides) == len({group for group, _ in sides})


def test_one_numbered_series_keeps_its_last_fifth_in_the_order_of_its_numbers():
    files = files_of([f"frame_{n}" for n in range(1, 21)])
    kept = [file.image.stem for file, part in zip(files, split_set(files), strict=True) if part != "training"]
    assert kept == ["frame_17", "frame_18", "frame_19", "frame_20"]


def test_numbers_that_are_no_plain_digits_are_text():
    assert split_set(files_of(["scan_10²"], planes=5)) == ["training"] * 4 + ["tuning"]


def test_a_single_volume_is_cut_and_several_stay_whole():
    assert split_set(files_of(["scan"], planes=10)) == ["training"] * 8 + ["tuning", "reporting"]
    files = files_of(["scan_1", "scan_2", "scan_3"], planes=4)
    sides = {(file.image.stem, part) for file, part in zip(files, split_set(files), strict=True)}
    assert len(sides) == 3


def test_a_single_image_is_for_training():
    assert split_set(files_of(["one"])) == ["training"]
    assert split_set([]) == []
