"""Whatever a file holds, reading it gives a result or an error of ours: bounded, and nothing else touched."""

import copy
import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_lightsam.batch.recipe import Recipe, read_recipe, write_recipe
from napari_lightsam.batch.slide_record import read_record as read_slide_record
from napari_lightsam.batch.slide_record import recall_plane, recall_size
from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.formats import filling
from napari_lightsam.formats.export import write_objects
from napari_lightsam.formats.geojson import read_geojson
from napari_lightsam.formats.objects import Objects
from napari_lightsam.formats.roi import read_rois
from napari_lightsam.formats.sidecar import read_record
from napari_lightsam.session import Document, ImageRecord, LabelRecord, read_lightsam, write_document

FEW = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))

DEEP = json.loads("[" * 200 + "]" * 200)
NASTY = [
    None, True, -1, 0, 1.5, 2**31, 2**70, 10**400, -1e308, "", "x" * 5000, "\x00", "\ud800", "../../outside",
    "/etc/passwd", "//host/share", [], [[]], {}, [0, 2**70], [1] * 70, {"a": {}}, DEEP, float("nan"),
]  # fmt: skip
"""Values that stand where others are expected."""

LABELS = np.kron(np.array([[0, 3], [7, 0]]), np.ones((5, 5), int))


def paths_in(value, path=()):
    """All places in a tree of lists and dictionaries."""
    found = [path]
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in steps:
        found += paths_in(inner, (*path, key))
    return found


@st.composite
def changed(draw, document):
    """A document with one or two values replaced or removed."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(paths_in(document)))
        value = copy.deepcopy(draw(st.sampled_from(NASTY)))  # the next change may reach into it
        if not path:
            return value
        place = document
        for key in path[:-1]:
            place = place[key]
        if isinstance(place, dict) and draw(st.booleans()):
            del place[path[-1]]
        else:
            place[path[-1]] = value
    return document


@st.composite
def damaged(draw, content):
    """Bytes of a file, cut off, or some of them changed, doubled or left out."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "cut", "double", "drop", "large"]))
        if kind == "change" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 32))]
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 32))]
        else:
            content[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(content)


def as_json(value):
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Lower the limits, so that what reaches them takes no time."""
    monkeypatch.setattr(filling, "MOST_PIXELS", 1 << 20)
    monkeypatch.setattr(filling, "_PAINTED", 1 << 22)
    monkeypatch.setattr(filling, "_ALL_CROSSINGS", 1 << 22)


def read(reader, path, content):
    """Read hostile content: a result, or an error of ours, and no file appears anywhere near."""
    path.write_bytes(content)
    near = path.parent.parent
    before = sorted(near.rglob("*"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = reader(path)
    except LightSamError:
        result = None
    assert sorted(near.rglob("*")) == before
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def geojson(folder):
    write_objects(folder / "a.geojson", Objects(LABELS))
    return (folder / "a.geojson").read_bytes()


@pytest.fixture(scope="module")
def rois(folder):
    write_objects(folder / "a_rois.zip", Objects(LABELS))
    return (folder / "a_rois.zip").read_bytes()


@pytest.fixture(scope="module")
def archive(folder):
    image = ImageRecord(name="cells", shape=(10, 10), dtype="uint8", pixels=np.zeros((10, 10), "uint8"))
    note = {"role": "objects", "largest": 7}
    made = {3: {"prompt": {"points": [[1.0, 2.0]], "labels": [1]}}}
    labels = LabelRecord(name="objects", data=LABELS.astype("int32"), note=note, objects=made)
    document = Document(images=(image,), labels=(labels,), target=0, settings={"model": "lightsam"})
    write_document(folder / "a.lightsam", document)
    return (folder / "a.lightsam").read_bytes()


@given(data=st.data())
@FEW
def test_geojson(data, geojson, tmp_path):
    values = changed(json.loads(geojson)).map(as_json)
    read(read_geojson, tmp_path / "b.geojson", data.draw(values | damaged(geojson)))


@given(data=st.data())
@FEW
def test_imagej_rois(data, rois, tmp_path):
    with zipfile.ZipFile(io.BytesIO(rois)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = data.draw(st.sampled_from(sorted(entries)))
    entries[data.draw(st.sampled_from([name, "../../out.roi", "/out.roi", "C:\\out.roi"]))] = data.draw(
        damaged(entries[name])
    )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for entry, value in entries.items():
            archive.writestr(entry, value)
        archive.comment = data.draw(
            st.sampled_from([b"", b'{"shape": [1e9, 1]}', b'{"shape": [99999999, 9]}'])
        )
    read(read_rois, tmp_path / "b.zip", data.draw(st.just(content.getvalue()) | damaged(rois)))


@given(data=st.data())
@FEW
def test_a_record(data, tmp_path):
    record = {
        "application": "napari-lightsam", "version": "1", "input": "a.tif", "input_sha256": "0",
        "settings": {}, "model": "m", "model_sha256": "0", "device": "cpu", "precision": "float32",
        "runtime": "torch",
        "object_size": 2.5, "object_size_estimated": True, "pixel_size": [0.5, 0.5], "pixel_size_source": "",
        "n_objects": 3, "outputs": {"a.csv": "0"}, "shape": [4, 5], "channels": ["a"], "flags": ["b"],
    }  # fmt: skip
    found = read(read_record, tmp_path / "a_labels.json", data.draw(changed(record).map(as_json)))
    if found is not None:
        assert isinstance(found.n_objects, int)
        assert not found.differences(found)


@given(data=st.data())
@FEW
def test_what_a_slide_says_of_itself(data, tmp_path):
    facts = {
        "complete": True, "identity": "0", "n_objects": 3, "blocks": 2, "shape": [8, 9, 2], "blank": False,
        "channels": 2, "chosen": False, "colour": False, "limits": [[0, 9.5], [1, 7]], "mean": 0.4,
        "std": 0.2, "object_size": 26,
    }  # fmt: skip
    pixels = np.ones((8, 9, 2), np.uint8)
    assert recall_plane(pixels, facts) is not None
    (tmp_path / "a").mkdir(exist_ok=True)
    content = data.draw(changed({"lightsam": facts}).map(as_json) | damaged(as_json({"lightsam": facts})))
    found = read(lambda path: read_slide_record(path.parent), tmp_path / "a" / ".zattrs", content) or {}
    plane, size = recall_plane(pixels, found), recall_size(found)
    assert plane is None or np.isfinite(plane.read((0, 8), (0, 9))).all()
    assert size is None or size > 0
    assert not found.get("complete") or found["n_objects"] + found["blocks"] is not None


@given(data=st.data())
@FEW
def test_a_session_archive(data, archive, tmp_path):
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    entries["session.json"] = data.draw(changed(json.loads(entries["session.json"])).map(as_json))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, value in entries.items():
            file.writestr(name, value)
        if data.draw(st.booleans()):
            file.writestr(data.draw(st.sampled_from(["../../out", "/out", "images/../../out.bin"])), b"")
    read(read_lightsam, tmp_path / "b.lightsam", data.draw(st.just(content.getvalue()) | damaged(archive)))


@pytest.mark.parametrize(
    ("shape", "size"), [([0, 2**70], 0), ([0, 2**31, 2**31], 0), ([1] * 70, 2)], ids=["long", "large", "deep"]
)
def test_an_array_of_an_impossible_shape_in_a_session(shape, size, archive, tmp_path):
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    document = json.loads(entries["session.json"])
    document["labels"][0]["array"]["shape"] = shape
    entries["session.json"] = as_json(document)
    entries[document["labels"][0]["array"]["member"]] = bytes(size)
    with zipfile.ZipFile(tmp_path / "b.lightsam", "w") as file:
        for name, value in entries.items():
            file.writestr(name, value)
    with pytest.raises(FileError, match="damaged"):
        read_lightsam(tmp_path / "b.lightsam")


@given(data=st.data())
@FEW
def test_a_session_of_settings(data, tmp_path):
    session = {
        "format": "napari-lightsam", "version": 1, "image": "a.tif",
        "settings": {"model": "lightsam", "object_size": 26, "mode": "auto", "channel": 0, "z": 1},
    }  # fmt: skip
    read(read_lightsam, tmp_path / "b.lightsam", data.draw(changed(session).map(as_json)))


YAML = [
    "object_size: [", "object_size: !!python/object/apply:os.system ['touch out']", "model: &a [*a]",
    "a: &a [1, 1]\nb: &b [*a, *a]\nc: &c [*b, *b]\nobject_size: *c", "? {a: b}\n: c",
    "object_size: 2024-01-01",
    "object_size: .nan", "object_size: 0x" + "f" * 4000, "? [a, [b]]\n: 1", "<<: [1, 2]", "- - - -",
    "outputs: [roi, {a: b}]", "channel: !!binary aGFsbG8=", "z: 1_000", "\t", "%YAML 9.9\n---\na: b",
    "a: b\n---\n",
    "[" * 3000, "model: " + "&x" * 9, "recipe: 99", "time: 12:30:45", "object_size: !!float [1]",
    "link: yes: no",
    "object_size: !!timestamp 2024-99-99", "=: 3", "object_size: !!set {a, b}", "{}: {}", "~: ~",
    "outputs: 5", "- " * 50_000, "[" * 500_000, "{a: " * 100_000, "pixel_size: [.inf, 0x" + "f" * 4000 + "]",
]  # fmt: skip


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_a_recipe_of_any_yaml(text, tmp_path):
    (tmp_path / "in").mkdir()
    read(read_recipe, tmp_path / "in" / "a.yaml", text.encode())


@given(data=st.data())
@FEW
def test_a_damaged_recipe(data, tmp_path):
    write_recipe(tmp_path / "a.yaml", Recipe(outputs=("roi", "overlay")))
    content = (tmp_path / "a.yaml").read_bytes()
    read(read_recipe, tmp_path / "b.yaml", data.draw(damaged(content)))


@given(data=st.data())
@FEW
def test_a_checkpoint_header(data, tmp_path):
    header = {
        "image_encoder.a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "mask_decoder.b": {"dtype": "F32", "shape": [1], "data_offsets": [24, 28]},
        "__metadata__": {"spec": "lightsam"},
    }
    text = data.draw(changed(header).map(as_json))
    length = data.draw(st.sampled_from([len(text), len(text) + 1, 2**31, 2**63, 2**64 - 1, 0]))
    read(read_checkpoint, tmp_path / "a.safetensors", struct.pack("<Q", length) + text + bytes(28))


@given(data=st.data())
@FEW
def test_a_pytorch_checkpoint(data, tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": {"image_encoder.a": torch.zeros(2, 3)}, "epoch": 3}, buffer)
    read(read_checkpoint, tmp_path / "a.pt", data.draw(damaged(buffer.getvalue())))


def test_objects_that_lie_over_each_other_without_end_are_refused_before_they_are_drawn(tmp_path):
    ring = [[0, 0], [1000, 0], [1000, 1000], [0, 1000], [0, 0]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "a.geojson").write_bytes(as_json([feature] * 200))
    with pytest.raises(FileError, match="cover the image more than 8 times over"):
        read_geojson(tmp_path / "a.geojson")


def test_outlines_that_go_up_and_down_without_end_are_refused_before_they_are_drawn(tmp_path):
    ring = [[x % 3, 1000 * (x % 2)] for x in range(300)]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "a.geojson").write_bytes(as_json([feature] * 100))
    with pytest.raises(FileError, match="absurd length"):
        read_geojson(tmp_path / "a.geojson")


def test_nothing_of_a_file_is_ever_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Program:
        def __reduce__(self):
            return Path.touch, (Path(tmp_path / "ran"),)

    torch.save({"model": {"image_encoder.a": Program()}}, tmp_path / "a.pt")
    (tmp_path / "a.yaml").write_text("model: !!python/object/apply:pathlib.Path.touch ['ran']")
    for reader, name in ((read_checkpoint, "a.pt"), (read_recipe, "a.yaml")):
        with pytest.raises(LightSamError):
            reader(tmp_path / name)
    assert not (tmp_path / "ran").exists()
