"""Embeddings on disk: the second visit equals the first, and no fault of the disk costs a result."""

import os
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lightsam import EverythingConfig, Segmenter, drain, load_segmenter
from napari_lightsam.engine.level import BlockCache
from napari_lightsam.engine.runtime import Device
from napari_lightsam.engine.store import (
    EmbeddingStore,
    StoredRuntime,
    embeddings_folder,
    embeddings_limit,
    signature,
    with_store,
)
from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import ConfigError

CPU = Device("cpu", "float32", "asked")
KEY = "ab" * 16


class Counting:
    """A runtime that counts what is encoded."""

    def __init__(self, runtime):
        self.runtime, self.encoded = runtime, 0

    def __getattr__(self, name):
        return getattr(self.runtime, name)

    def encode(self, frame):
        self.encoded += 1
        return self.runtime.encode(frame)


@pytest.fixture
def visit(segmenter, tmp_path):
    """A segmenter that keeps embeddings in one folder, each time as if it were loaded anew."""

    def again(**options) -> Segmenter:
        store = EmbeddingStore(tmp_path / "embeddings", **options)
        counting = Counting(segmenter.runtime)
        return Segmenter(
            segmenter.spec, StoredRuntime(counting, store, segmenter.weights_hash), segmenter.weights_hash
        )

    return again


def encoded(segmenter: Segmenter) -> int:
    return segmenter.runtime.runtime.encoded


def files(store: EmbeddingStore) -> list:
    return [path for path, _, _ in store.entries()]


def tokens(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_the_second_visit_encodes_nothing_and_gives_the_same_masks(visit, nuclei):
    image, config = nuclei[0], EverythingConfig(object_size=26)
    first, second = visit(), visit()
    before = first.predict(first.embed(image, object_size=26), points=[(99, 143)])
    after = second.predict(second.embed(image, object_size=26), points=[(99, 143)])
    assert (encoded(first), encoded(second)) == (1, 0)
    assert before.best(0).iou == after.best(0).iou
    assert np.array_equal(before.to_array(), after.to_array())
    everything = [drain(s.everything(image, config)) for s in (first, second)]
    assert np.array_equal(everything[0].labels, everything[1].labels)
    assert np.array_equal(everything[0].scores, everything[1].scores)
    assert encoded(second) == 0


def test_embeddings_are_kept_only_when_asked_in_the_cache_or_a_folder(
    segmenter, monkeypatch, tmp_path, nuclei
):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    assert with_store(segmenter.runtime, False, "w") is segmenter.runtime
    mine = with_store(segmenter.runtime, tmp_path / "mine", "w")
    assert isinstance(mine, StoredRuntime)
    assert mine.store.folder == tmp_path / "mine"
    kept = load_segmenter(device="cpu", precision="float32", runtime="torch", cache=True)
    assert not embeddings_folder().exists()
    kept.embed(nuclei[0][:64, :64], object_size=26)
    assert len(EmbeddingStore().entries()) == 1


def test_a_changed_part_of_an_image_is_encoded_anew_and_the_rest_is_not(visit, nuclei):
    # Two blocks at the model's own scale; tiles in one direction only would make them equal.
    plane = np.concatenate([np.rot90(nuclei[0], k) for k in (0, 1, 2, 3, 1, 0)], axis=1)
    changed = plane.copy()
    changed[:40, -40:] = 255 - changed[:40, -40:]
    first, second = visit(), visit()
    embedding = first.embed(plane, object_size=first.spec.frame.target)
    points = [[(99, 20)], [(99, 1516)]]
    first.predict(embedding, points=points)
    assert encoded(first) == 2
    # The same normalisation: another one would change what every block is fed.
    other = replace(embedding, plane=replace(embedding.plane, data=changed), cache=BlockCache())
    second.predict(other, points=points)
    assert encoded(second) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_tokens_come_back_bit_for_bit_and_in_the_same_order(tmp_path, dtype, layout):
    put = tokens(1, dtype).contiguous(memory_format=layout)
    EmbeddingStore(tmp_path).put(KEY, put)
    got = EmbeddingStore(tmp_path).get(KEY)
    assert got.dtype == dtype
    assert got.stride() == put.stride()  # another order may be summed up otherwise
    assert torch.equal(got, put)


def test_files_are_zarr_that_other_programs_read(tmp_path):
    import zarr

    store = EmbeddingStore(tmp_path)
    store.put(KEY, tokens())
    with zarr.storage.ZipStore(files(store)[0], mode="r") as kept:
        array = zarr.open_array(kept, mode="r")
        assert array.metadata.zarr_format == 3
        assert np.array_equal(array[...], tokens().numpy())


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda f: signature(f + 1, "w", CPU), id="pixels"),
        pytest.param(lambda f: signature(f[:, :4], "w", CPU), id="shape"),
        pytest.param(lambda f: signature(f.reshape(3, 4, 16), "w", CPU), id="layout"),
        pytest.param(lambda f: signature(f, "v", CPU), id="weights"),
        pytest.param(lambda f: signature(f, "w", Device("cpu", "bfloat16", "")), id="precision"),
        pytest.param(
            lambda f: signature(f, "w", replace(CPU, encoder="a1")), id="calibration of an int8 encoder"
        ),
        pytest.param(lambda f: signature(f, "w", Device("cuda", "float32", "")), id="device"),
        pytest.param(lambda f: signature(f, "w", Device("cpu", "float32", "", "zarr")), id="runtime"),
    ],
)
def test_everything_that_tokens_depend_on_makes_another_signature(other):
    frame = np.arange(192, dtype=np.float32).reshape(3, 8, 8)
    assert signature(frame, "w", CPU) == signature(frame.copy(), "w", CPU)
    assert other(frame) != signature(frame, "w", CPU)


def test_damaged_files_count_as_missing_are_removed_and_made_again(tmp_path):
    store = EmbeddingStore(tmp_path)
    random = np.random.default_rng(0)
    store.put(KEY, tokens())
    path = files(store)[0]
    whole = path.read_bytes()
    damaged = [b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"nonsense" * 50]
    for at in random.choice(len(whole), 60, replace=False):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        damaged.append(bytes(flipped))
    missed = 0
    for content in damaged:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        got = store.get(KEY)
        assert got is None or torch.equal(got, tokens())  # bytes that mean nothing may be flipped
        missed += got is None
        store.put(KEY, tokens())
        assert torch.equal(store.get(KEY), tokens())
    assert missed > 40


def test_a_file_that_lost_its_values_does_not_pass_for_zeros(tmp_path):
    import zarr

    store = EmbeddingStore(tmp_path)
    store.put(KEY, tokens())
    path = files(store)[0]
    with zarr.storage.ZipStore(path, mode="r") as kept:
        attributes = dict(zarr.open_array(kept, mode="r").attrs)
    path.unlink()
    with zarr.storage.ZipStore(path, mode="w") as kept:
        zarr.create_array(kept, shape=(1, 16, 8, 8), chunks=(1, 16, 8, 8), dtype="f4", attributes=attributes)
    assert store.get(KEY) is None
    assert not path.exists()


def test_a_file_under_another_name_is_not_taken(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.put(KEY, tokens())
    os.replace(files(store)[0], store.folder / KEY[:2] / f"{KEY[:-1]}0.zarr.zip")
    assert store.get(f"{KEY[:-1]}0") is None


def test_the_least_recently_used_go_first(tmp_path):
    store = EmbeddingStore(tmp_path, limit=4 * 6000)  # a file takes some 5 kB
    keys = [f"{i:032x}" for i in range(4)]
    for i, key in enumerate(keys):
        store.put(key, tokens(i))
        os.utime(store._path(key), (1000 + i, 1000 + i))
    assert store.get(keys[0]) is not None  # used now
    store.put("f" * 32, tokens(9))
    assert [key for key in keys if store.get(key) is None] == [keys[1]]
    assert sum(size for _, size, _ in store.entries()) <= store.limit


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path):
    store = EmbeddingStore(tmp_path, limit=1000)
    store.put(KEY, tokens())
    assert store.get(KEY) is None
    assert not files(store)


def test_all_of_it_can_be_removed_with_what_dead_processes_left(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.put(KEY, tokens())
    old, young = (store.folder / KEY[:2] / f".{name}.part" for name in ("old", "young"))
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    yesterday = time.time() - 2 * 24 * 3600
    os.utime(old, (yesterday, yesterday))
    assert store.shrink(0) > 4096
    assert not files(store)
    assert (old.exists(), young.exists()) == (False, True)  # the young one may be another process's


def test_a_folder_that_takes_no_file_costs_one_warning_and_no_result(visit, tmp_path, nuclei):
    (tmp_path / "embeddings").write_text("a file is in the way")
    segmenter = visit()
    with pytest.warns(LightSamWarning, match=r"Embeddings cannot be kept in .*LIGHTSAM_CACHE"):
        segmenter.embed(nuclei[0][:64, :64], object_size=26)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.embed(nuclei[0][:64, 64:128], object_size=26)
    assert encoded(segmenter) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="files cannot be limited there")
def test_a_full_disk_costs_one_warning_and_leaves_nothing_half(tmp_path):
    import resource

    store = EmbeddingStore(tmp_path)
    store.put(KEY, tokens())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.warns(LightSamWarning, match="cannot be kept"):
            store.put("cd" * 16, tokens(1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.put("ef" * 16, tokens(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [f"{KEY}.zarr.zip"]
    assert torch.equal(store.get(KEY), tokens())  # what is there is still read


WRITER = """
import sys, torch
from napari_lightsam.engine.store import EmbeddingStore
store = EmbeddingStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
values = torch.arange(1 << 18, dtype=torch.float32).reshape(1, 256, 32, 32)
for _ in range(40):
    store.put("ab" * 16, values)
    got = store.get("ab" * 16)
    assert got is not None and torch.equal(got, values)
print("done", flush=True)
"""


def start(script: str, folder) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_and_read_the_same_embedding_at_once(tmp_path):
    writers = [start(WRITER, tmp_path) for _ in range(2)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        out, error = writer.communicate(timeout=120)
        assert (writer.returncode, out) == (0, "done\n"), error
    store = EmbeddingStore(tmp_path)
    assert len(files(store)) == 1
    assert store.get(KEY).flatten()[-1] == (1 << 18) - 1
    assert not list(tmp_path.rglob("*.part"))


CRASH = """
import os, sys, torch
from napari_lightsam.engine import store
write = store._write
def half(path, key, tokens):
    write(path, key, tokens)
    os.truncate(path, 1000)
    os._exit(1)
store._write = half
store.EmbeddingStore(sys.argv[1]).put("ab" * 16, torch.ones(1, 16, 8, 8))
"""


def test_an_embedding_that_another_is_reading_stays_and_more_are_kept(tmp_path, monkeypatch):
    store, replace = EmbeddingStore(tmp_path), os.replace
    store.put(KEY, torch.ones(1, 2, 4, 4))

    def replaced(old, new):
        if os.path.exists(new):  # as on Windows, where it is open
            raise PermissionError(13, "Access is denied", str(old), None, str(new))
        replace(old, new)

    monkeypatch.setattr(os, "replace", replaced)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put(KEY, torch.ones(1, 2, 4, 4))
        store.put("cd" * 16, torch.ones(1, 2, 4, 4))
    assert len(store.entries()) == 2
    assert not list(tmp_path.glob("*/.*"))


def test_a_process_that_dies_while_it_writes_leaves_no_embedding(tmp_path):
    assert start(CRASH, tmp_path).wait(timeout=120) == 1
    store = EmbeddingStore(tmp_path)
    assert list(tmp_path.rglob("*.part"))  # it did die in between
    assert store.get(KEY) is None
    store.put(KEY, tokens())
    assert torch.equal(store.get(KEY), tokens())


def test_the_limit_is_four_gib_or_what_the_environment_says(monkeypatch):
    monkeypatch.delenv("LIGHTSAM_EMBEDDINGS_GIB", raising=False)
    assert embeddings_limit() == 4 * 2**30
    monkeypatch.setenv("LIGHTSAM_EMBEDDINGS_GIB", "0.5")
    assert EmbeddingStore().limit == 2**29
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv("LIGHTSAM_EMBEDDINGS_GIB", wrong)
        with pytest.raises(ConfigError, match=f"LIGHTSAM_EMBEDDINGS_GIB is a number of GiB.*{wrong}"):
            EmbeddingStore()


def test_keeping_embeddings_warns_about_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = EmbeddingStore(tmp_path)
        store.put(KEY, tokens(0, torch.bfloat16))
        store.put(KEY, tokens(0, torch.bfloat16))
        assert store.get(KEY) is not None
