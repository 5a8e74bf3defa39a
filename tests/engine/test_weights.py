import hashlib
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.registry import MODELS, ModelEntry, RemoteFile
from napari_lightsam.engine.weights import load_model, read_checkpoint
from napari_lightsam.errors import WeightsError
from napari_lightsam.model.spec import FixedFrame, ModelSpec, ObjectFrame

TINY = {
    "image_encoder.patch_embed.seq.0.c.weight": torch.linspace(-1, 1, 864).reshape(32, 3, 3, 3),
    "prompt_encoder.no_mask_embed.weight": torch.full((1, 256), 0.5),
    "mask_decoder.iou_token.weight": torch.full((1, 256), -0.25),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIGHTSAM_MODEL_PATH", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def embedded():
    return read_checkpoint(find_weights("lightsam")[0]).tensors


@pytest.fixture(scope="module")
def frame():
    return torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def embedding(frame):
    with torch.no_grad():
        return load_model("lightsam").model.encode(frame)


def with_prefix(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def decoder_halves(tensors):
    return {
        key: {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
        for key, part in (("PromtEncoder", "prompt_encoder."), ("MaskDecoder", "mask_decoder."))
    }


LAYOUTS = {
    "flat": ("flat", lambda tensors: tensors),
    "flat, pixel statistics": ("flat", lambda tensors: {**tensors, "pixel_mean": torch.ones(3, 1, 1)}),
    "flat, data parallel": ("flat", lambda tensors: with_prefix("module.", tensors)),
    "model": ("model", lambda tensors: {"model": tensors, "epoch": 3, "optimizer": {"lr": 0.1}}),
    "model_state, sam": ("model_state", lambda tensors: {"model_state": with_prefix("sam.", tensors)}),
    "state_dict": ("state_dict", lambda tensors: {"state_dict": tensors}),
    "state_dict, parallel": (
        "state_dict",
        lambda tensors: {"state_dict": with_prefix("module.model.", tensors)},
    ),
    "flat beside a decoder": ("flat", lambda tensors: {**tensors, "decoder_state": {"out": torch.ones(2)}}),
}


# --- reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "wrap"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_every_known_layout_gives_the_same_float32_tensors(tmp_path, layout, wrap, dtype, zipped):
    stored = {name: tensor.to(dtype) for name, tensor in TINY.items()}
    path = tmp_path / "weights.bin"  # the content decides, not the extension
    torch.save(wrap(stored), path, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    assert checkpoint.layout == layout
    assert checkpoint.tensors.keys() == TINY.keys()
    for name, tensor in checkpoint.tensors.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float())
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_lies_beside_the_weights_is_reported_by_name(tmp_path):
    torch.save({"model": TINY, "epoch": 3, "optimizer": {}}, tmp_path / "weights.pt")
    assert read_checkpoint(tmp_path / "weights.pt").ignored == ("epoch", "optimizer")


def test_a_safetensors_file_brings_its_header_along(tmp_path):
    save_file(TINY, tmp_path / "weights", {"format": "pt", "note": "yeast"})
    checkpoint = read_checkpoint(tmp_path / "weights")
    assert checkpoint.metadata == {"format": "pt", "note": "yeast"}
    assert all(torch.equal(checkpoint.tensors[name], TINY[name]) for name in TINY)


def test_the_decoder_file_of_mobilesamv2_gets_canonical_names(tmp_path):
    torch.save(decoder_halves(TINY), tmp_path / "decoder.pt")
    checkpoint = read_checkpoint(tmp_path / "decoder.pt")
    assert checkpoint.layout == "MobileSAMv2 decoder"
    assert set(checkpoint.tensors) == set(list(TINY)[1:])


def test_one_name_for_two_tensors_is_refused(tmp_path):
    torch.save({**TINY, **with_prefix("sam.", TINY)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="two tensors named"):
        read_checkpoint(tmp_path / "weights.pt")


def zip_file(path):
    torch.save({name: tensor.repeat(4, *[1] * (tensor.ndim - 1)) for name, tensor in TINY.items()}, path)
    return path.read_bytes()


def safetensors_file(path):
    save_file(TINY, path)
    return path.read_bytes()


def legacy_file(path):
    torch.save(TINY, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9, 0.999], ids=lambda part: f"{part:.1%}")
@pytest.mark.parametrize("write", [zip_file, safetensors_file, legacy_file])
def test_a_truncated_file_of_any_kind_is_one_clear_error(tmp_path, write, part):
    whole = write(tmp_path / "whole")
    (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(WeightsError, match=r"cut\.pt is damaged.*[Ff]etch it again"):
        read_checkpoint(tmp_path / "cut.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "is a web page, not a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "only a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is no checkpoint"),
        (b"II*\0" + bytes(100), "is no checkpoint"),
        (b"plain words", "is no checkpoint"),
        (b"\x80\x04N.", "damaged|holds a NoneType"),
    ],
    ids=["empty", "web page", "Git LFS", "PNG", "TIFF", "text", "pickled None"],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_words(tmp_path, content, message):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / "file.pt")


def test_a_missing_file_and_a_folder_are_refused_in_words(tmp_path):
    with pytest.raises(WeightsError, match=r"no file .*nothing\.pt"):
        read_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(WeightsError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list, not weights"),
        (torch.ones(2, 3), r"a single tensor of shape \(2, 3\)"),
        ({}, "an empty dictionary"),
        ({"epoch": 3, "loss": 0.5}, r"2 entries \(epoch, loss\), but no tensor of a Segment Anything model"),
        ({"fc.weight": torch.ones(2)}, "no tensor of a Segment Anything model"),
        ({"PromtEncoder": 1, "MaskDecoder": {}}, "should hold tensors for prompt_encoder"),
        (
            {"mask_decoder.x": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8)},
            "only plain floating point",
        ),
        ({"mask_decoder.x": torch.ones(4, dtype=torch.int8)}, "quantised"),
    ],
    ids=["list", "tensor", "nothing", "numbers", "other network", "no halves", "quantised", "int8"],
)
def test_a_file_of_something_else_than_float_weights_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("module", "name", "advice"),
    [
        ("ultralytics.nn.tasks", "DetectionModel", r"ObjectAwareModel\.pt.*'mobilesamv2'"),
        ("tinysam.modeling.sam", "Sam", r"tinysam_w8a8\.pth.*'tinysam'"),
        ("somebodys.network", "Net", r"state_dict\(\)"),
    ],
    ids=["detector", "quantised TinySAM", "any module"],
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in a dictionary"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickled_module_is_refused_by_content_with_what_to_use_instead(
    tmp_path, monkeypatch, module, name, advice, wrapped, zipped
):
    parents = module.split(".")
    for depth in range(1, len(parents) + 1):
        path = ".".join(parents[:depth])
        monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    network = type(name, (torch.nn.Linear,), {"__module__": module})
    setattr(sys.modules[module], name, network)
    content = network(2, 2)
    file = tmp_path / "innocent_name.pth"
    torch.save({"model": content} if wrapped else content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=f"pickled program.*refused.*{advice}") as error:
        read_checkpoint(file)
    assert f"{module}.{name}" in str(error.value)


def test_a_scripted_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "program.pt")
    with pytest.raises(WeightsError, match="TorchScript program"):
        read_checkpoint(tmp_path / "program.pt")


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_pickle_that_wants_to_run_code_never_does(tmp_path):
    torch.save({**TINY, "extra": Payload(str(tmp_path / "ran"))}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="refused"):
        load_model(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


# --- loading -----------------------------------------------------------------------------------------


def test_the_embedded_model_loads_ready_for_use(embedding):
    loaded = load_model("lightsam")
    assert loaded.spec is MODELS["lightsam"].spec
    assert not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in loaded.model.modules())
    assert loaded.weights_hash == hashlib.sha256(loaded.source.read_bytes()).hexdigest()
    assert embedding.shape == (1, 256, 16, 16)
    assert torch.isfinite(embedding).all()


@pytest.mark.parametrize(("layout", "wrap"), LAYOUTS.values(), ids=LAYOUTS)
def test_real_weights_in_every_layout_give_the_same_embedding(
    tmp_path, embedded, frame, embedding, layout, wrap
):
    torch.save(wrap(embedded), tmp_path / "weights.pth")
    loaded = load_model(tmp_path / "weights.pth", spec=MODELS["lightsam"].spec)
    with torch.no_grad():
        assert torch.equal(loaded.model.encode(frame), embedding)


def test_half_precision_on_disk_is_float32_in_use(tmp_path, embedded, frame, embedding):
    half = {name: value.half() if value.is_floating_point() else value for name, value in embedded.items()}
    torch.save(half, tmp_path / "half.pt")
    with torch.no_grad():
        result = load_model(str(tmp_path / "half.pt")).model.encode(frame)
    assert result.dtype == torch.float32
    assert (result - embedding).norm() < 1e-2 * embedding.norm()


def test_the_unused_classification_head_is_dropped_and_reported(tmp_path, embedded):
    heads = {"image_encoder.norm_head.weight": torch.ones(320), "image_encoder.head.bias": torch.ones(1000)}
    torch.save({**embedded, **heads}, tmp_path / "weights.pt")
    assert load_model(tmp_path / "weights.pt").report.dropped == tuple(sorted(heads))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {n: v for n, v in t.items() if not n.startswith("mask_decoder.transformer.layers.1.")},
            r"36 tensors are missing: 36 like mask_decoder\.transformer\.layers\.1",
        ),
        (
            lambda t: {**t, "mask_decoder.hf_token.weight": torch.ones(1, 256)},
            r"1 tensor is unexpected: mask_decoder\.hf_token\.weight",
        ),
        (
            lambda t: {**t, "mask_decoder.mask_tokens.weight": torch.ones(5, 256)},
            r"1 tensor is of another shape: mask_decoder\.mask_tokens\.weight has 5x256 instead of 4x256",
        ),
        (
            lambda t: {**t, "mask_decoder.mask_tokens.weight": torch.full((4, 256), torch.nan)},
            r"NaN or infinite\) in mask_decoder\.mask_tokens\.weight",
        ),
        (lambda t: with_prefix("other.", t), "no tensor of a Segment Anything model"),
    ],
    ids=["missing", "unexpected", "misshaped", "not a number", "unknown prefix"],
)
def test_tensors_that_do_not_fit_are_reported_in_words(tmp_path, embedded, change, message):
    torch.save(change(embedded), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=message) as error:
        load_model(tmp_path / "weights.pt")
    assert len(str(error.value)) < 800


def test_hundreds_of_wrong_names_make_a_short_message(tmp_path, embedded):
    renamed = {name.replace("blocks", "stages"): tensor for name, tensor in embedded.items()}
    torch.save(renamed, tmp_path / "weights.pt")
    message = r"210 .*missing.*and \d+ more.*unexpected.*like image_encoder\.layers"
    with pytest.raises(WeightsError, match=message) as error:
        load_model(tmp_path / "weights.pt")
    assert len(str(error.value)) < 1500


# --- what a file is fed like -------------------------------------------------------------------------


def test_a_file_that_says_nothing_is_fed_like_sam(tmp_path, embedded):
    torch.save(embedded, tmp_path / "mine.pt")
    spec = load_model(tmp_path / "mine.pt").spec
    assert (spec.name, spec.architecture, spec.window) == ("mine", "vit_t", None)
    assert isinstance(spec.frame, FixedFrame)


def test_metadata_decides_how_a_local_file_is_fed_and_described(tmp_path, embedded):
    header = {"format": "napari-lightsam", "spec": "lightsam", "title": "Yeast", "trained_on": "yeast"}
    save_file(embedded, tmp_path / "mine.safetensors", header)
    spec = load_model(tmp_path / "mine.safetensors").spec
    assert (spec.name, spec.title, spec.trained_on, spec.window) == ("mine", "Yeast", "yeast", 16)
    assert isinstance(spec.frame, ObjectFrame)


def test_metadata_of_a_newer_version_is_an_error_and_no_guess(tmp_path, embedded):
    save_file(embedded, tmp_path / "new.safetensors", {"format": "napari-lightsam", "spec": "lightsam9"})
    with pytest.raises(WeightsError, match=r"used like 'lightsam9'.*Update napari-lightsam"):
        load_model(tmp_path / "new.safetensors")


def test_a_local_file_with_a_published_hash_is_that_model(tmp_path, embedded, monkeypatch):
    torch.save(embedded, tmp_path / "renamed.bin")
    digest = hashlib.sha256((tmp_path / "renamed.bin").read_bytes()).hexdigest()
    spec = ModelSpec("known", "Known", always_multimask=True)
    entry = ModelEntry(spec, (RemoteFile("known.pth", "https://example.invalid", None, f"sha256:{digest}"),))
    monkeypatch.setitem(MODELS, "known", entry)
    assert load_model(tmp_path / "renamed.bin").spec is spec


def test_the_spec_argument_wins(tmp_path, embedded):
    save_file(embedded, tmp_path / "a.safetensors", {"format": "napari-lightsam", "spec": "lightsam"})
    spec = ModelSpec("mine", "Mine", window=24)
    assert load_model(tmp_path / "a.safetensors", spec=spec).spec is spec


def test_a_spec_for_another_encoder_is_refused_by_name(tmp_path, embedded):
    torch.save(embedded, tmp_path / "mine.pt")
    with pytest.raises(WeightsError, match="holds a vit_t encoder, but the model is described as vit_b"):
        load_model(tmp_path / "mine.pt", spec=ModelSpec("mine", "Mine", architecture="vit_b"))


def test_a_decoder_alone_says_which_model_uses_it(tmp_path, embedded):
    torch.save(decoder_halves(embedded), tmp_path / "Prompt_guided_Mask_Decoder.pt")
    with pytest.raises(WeightsError, match=r"no image encoder.*'mobilesamv2'"):
        load_model(tmp_path / "Prompt_guided_Mask_Decoder.pt")


def test_an_encoder_of_another_family_is_named_as_the_problem(tmp_path, embedded):
    other = {n.replace("image_encoder.patch_embed", "image_encoder.stem"): v for n, v in embedded.items()}
    torch.save(other, tmp_path / "mine.pt")
    with pytest.raises(WeightsError, match=r"image encoder in .* is none of those"):
        load_model(tmp_path / "mine.pt")


def test_mobilesamv2_joins_an_encoder_file_and_a_decoder_file(embedded, cache, monkeypatch, frame, embedding):
    cache.mkdir()
    decoder = {name: value + 1 if value.is_floating_point() else value for name, value in embedded.items()}
    torch.save(embedded, cache / "first.pt")
    torch.save(decoder_halves(decoder), cache / "second.pt")
    files = tuple(
        RemoteFile(name, "https://example.invalid", None, "sha256:" + sha256(cache / name))
        for name in ("first.pt", "second.pt")
    )
    real = MODELS["mobilesamv2"]
    monkeypatch.setitem(MODELS, "mobilesamv2", ModelEntry(real.spec, files, parts=real.parts))
    loaded = load_model("mobilesamv2-decoder")
    tokens = loaded.model.state_dict()["mask_decoder.mask_tokens.weight"]
    assert torch.equal(tokens, decoder["mask_decoder.mask_tokens.weight"])
    with torch.no_grad():
        assert torch.equal(loaded.model.encode(frame), embedding)
    assert loaded.weights_hash not in (sha256(cache / "first.pt"), sha256(cache / "second.pt"))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_that_is_not_here_is_not_fetched_but_explained():
    with pytest.raises(WeightsError, match=r"'mobile_sam' is not on.*models download mobile_sam.*41 MB"):
        load_model("mobile_sam")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lightsm", "no model named 'lightsm'.*Did you mean lightsam"),
        ("tinysam_42.4", "no model named 'tinysam_42.4'"),
        ("mine.pt", "There is no file mine.pt"),
        (os.path.join("folder", "mine"), "There is no file folder.mine"),
        (Path("lightsam"), "There is no file lightsam"),
    ],
    ids=["name", "name with a dot", "file", "path", "Path"],
)
def test_what_is_neither_model_nor_file_is_told_apart(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=message):
        load_model(given)
