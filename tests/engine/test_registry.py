import re
import subprocess
import sys

import pytest

from napari_lightsam.engine.registry import ALIASES, MODELS, ModelEntry, described_spec, find_model
from napari_lightsam.errors import WeightsError
from napari_lightsam.model.spec import FixedFrame, ObjectFrame

NAMES = (
    "lightsam",
    "mobile_sam",
    "tinysam",
    "tinysam_42.3",
    "vit_t_lm",
    "vit_t_em_organelles",
    "mobilesamv2",
    "sam_vit_b",
    "sam_vit_l",
    "sam_vit_h",
)


def test_every_promised_model_is_listed_under_its_own_name():
    assert set(MODELS) == set(NAMES)
    assert all(name == entry.spec.name for name, entry in MODELS.items())


@pytest.mark.parametrize("entry", MODELS.values(), ids=MODELS)
def test_an_entry_says_what_a_user_must_know(entry: ModelEntry):
    spec = entry.spec
    for text in (spec.title, spec.trained_on, spec.not_trained_on, spec.licence, spec.citation, spec.source):
        assert text.strip()
    assert entry.embedded == (not entry.files)


@pytest.mark.parametrize(
    "file", [file for entry in MODELS.values() for file in entry.files], ids=lambda file: file.name
)
def test_a_file_is_fetched_encrypted_and_has_a_well_formed_hash(file):
    assert file.url.startswith("https://")
    assert file.expected_bytes > 10_000_000
    lengths = {"sha256": 64, "xxh128": 32, "gitblob": 40}
    if file.hash is None:
        assert file.name == "tinysam_42.3.pth"  # the only one that is published without
    else:
        kind, _, digest = file.hash.partition(":")
        assert re.fullmatch(rf"[0-9a-f]{{{lengths[kind]}}}", digest)


def test_file_names_are_unique_so_that_one_folder_or_mirror_can_hold_all():
    urls: dict[str, str] = {}
    for entry in MODELS.values():
        for file in entry.files:
            assert urls.setdefault(file.name, file.url) == file.url


def test_the_embedded_model_is_scaled_by_object_size_and_decoded_in_windows():
    spec = MODELS["lightsam"].spec
    assert isinstance(spec.frame, ObjectFrame)
    assert spec.window == 16
    assert spec.everything.points_per_side is None
    assert (spec.everything.point_spacing, spec.everything.stability_offset) == (16.0, 1.0)
    assert 0 < spec.everything.stability_threshold < spec.everything.iou_threshold <= 0.5
    assert 0 < spec.everything.proposal_threshold < 0.5


def test_a_file_says_of_itself_which_small_windows_it_was_trained_in():
    assert MODELS["lightsam"].spec.small_windows
    assert described_spec("lightsam", {}).small_windows == ()
    assert described_spec("lightsam", {"small_windows": "12, 8"}).small_windows == (8, 12)
    assert described_spec("lightsam", {"small_windows": "0,-8,9e9,1000,x,"}).small_windows == ()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lightsam"])
def test_models_of_the_sam_family_keep_sams_frame_and_thresholds(name):
    spec = MODELS[name].spec
    assert isinstance(spec.frame, FixedFrame)
    assert spec.window is None
    assert (spec.everything.points_per_side, spec.everything.iou_threshold) == (32, 0.88)
    assert spec.always_multimask == name.startswith("tinysam")


@pytest.mark.parametrize("letter", ["b", "l", "h"])
def test_sam_models_name_their_own_encoder(letter):
    assert MODELS[f"sam_vit_{letter}"].spec.architecture == f"vit_{letter}"


def test_mobilesamv2_takes_the_encoder_of_mobile_sam_and_its_own_decoder():
    entry = find_model("mobilesamv2-decoder")
    assert entry is MODELS[ALIASES["mobilesamv2-decoder"]] is MODELS["mobilesamv2"]
    assert entry.files[0] is MODELS["mobile_sam"].files[0]
    assert entry.parts == (("image_encoder.",), ("prompt_encoder.", "mask_decoder."))


def test_an_unknown_name_is_answered_with_the_close_and_all_the_known_ones():
    with pytest.raises(WeightsError, match=r"'mobilesam'.*Did you mean .*mobile_sam") as error:
        find_model("mobilesam")
    assert all(name in str(error.value) for name in NAMES)


def test_looking_models_up_imports_neither_torch_nor_a_download_library():
    script = (
        "import sys; from napari_lightsam.engine.download import find_weights; find_weights('lightsam');"
        "print([m for m in ('torch', 'timm', 'napari', 'requests', 'qtpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
