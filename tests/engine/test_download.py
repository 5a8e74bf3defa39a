"""Downloads against a real server on this computer that can misbehave in every way we promise to survive."""

import builtins
import errno
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import xxhash
from safetensors.torch import save

from napari_lightsam.engine import verify
from napari_lightsam.engine.download import (
    cache_folder,
    download,
    find_weights,
    identify,
    import_weights,
    is_available,
    list_models,
    search_folders,
)
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.registry import MODELS, ModelEntry, RemoteFile
from napari_lightsam.errors import DownloadError, WeightsError
from napari_lightsam.model.spec import ModelSpec

CONTENT = bytes(range(256)) * 4096  # 1 MiB
NAME = "tiny.pt"
CHECKPOINT = save({"image_encoder.patch_embed.seq.0.c.weight": torch.ones(32, 3, 3, 3)})
OTHER_CHECKPOINT = save({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(32, 3, 3, 3)})


class Handler(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how to behave, the last is the file."""

    def do_GET(self):
        server: Server = self.server
        server.requests.append(self.path)
        how = self.path.strip("/").split("/")[0]
        if how in ("missing", "gone", "forbidden", "broken"):
            self.send_error({"missing": 404, "gone": 410, "forbidden": 403, "broken": 503}[how])
            return
        body = server.files.get(self.path.rsplit("/", 1)[1], CONTENT)
        if how == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if how == "page":
            body = b"<!DOCTYPE html><title>Please log in</title>"
        if how == "empty":
            body = b""
        self.send_response(200)
        if how != "unannounced":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if how in ("truncated", "unannounced"):
            self.wfile.write(body[: len(body) // 2])
        elif how == "stalling":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            server.release.wait(20)
        elif how == "slow":
            self._write_slowly(body)
        else:
            self.wfile.write(body)

    def _write_slowly(self, body):
        try:
            for start in range(0, len(body), 16_384):
                self.wfile.write(body[start : start + 16_384])
                time.sleep(0.02)
        except OSError:
            pass  # the client has gone

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.files: dict[str, bytes] = {}
        self.release = threading.Event()

    def url(self, how, name=NAME):
        return f"http://127.0.0.1:{self.server_port}/{how}/{name}"


@pytest.fixture
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.release.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIGHTSAM_CACHE", str(folder))
    proxies = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
    for name in ("LIGHTSAM_MODEL_PATH", "LIGHTSAM_MIRROR", *proxies):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def register(monkeypatch):
    def add(*files, name="tiny", parts=()):
        monkeypatch.setitem(MODELS, name, ModelEntry(ModelSpec(name, name.title()), files, parts=parts))

    return add


def sha256(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def remote(url, content=CONTENT, *, size=True, known=True, name=NAME):
    return RemoteFile(
        name, url, len(content) if size else None, sha256(content) if known else None, about=len(content)
    )


def in_folder(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def put(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


# --- a download that works ---------------------------------------------------------------------------


def test_a_model_is_missing_before_its_download_and_verified_and_found_after(server, register, cache):
    register(remote(server.url("slow")))
    assert find_weights("tiny") is None
    assert not is_available("tiny")
    steps = []
    paths = drain(download("tiny"), steps.append)
    assert paths == (cache / NAME,) == find_weights("tiny")
    assert paths[0].read_bytes() == CONTENT
    assert in_folder(cache) == [NAME]
    fetching = [step.done for step in steps if step.stage.startswith("downloading")]
    assert len(set(fetching)) > 2
    assert fetching == sorted(fetching)
    assert {step.total for step in steps if step.stage.startswith("downloading")} == {len(CONTENT)}


def test_a_model_that_is_there_is_not_fetched_again(server, register):
    register(remote(server.url("good")))
    drain(download("tiny"))
    drain(download("tiny"))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "known",
    [
        sha256(CONTENT),
        "xxh128:" + xxhash.xxh128_hexdigest(CONTENT),
        "gitblob:" + hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest(),
    ],
    ids=["sha256", "xxh128", "gitblob"],
)
def test_every_kind_of_published_hash_accepts_the_right_file_and_no_other(server, register, cache, known):
    register(RemoteFile(NAME, server.url("good"), None, known))
    assert drain(download("tiny"))[0].read_bytes() == CONTENT
    (cache / NAME).unlink()
    register(RemoteFile(NAME, server.url("wrong"), None, known))
    with pytest.raises(DownloadError, match=f"expected {known}"):
        drain(download("tiny"))
    assert in_folder(cache) == []


def test_a_model_of_two_files_is_complete_only_with_both_and_shares_what_is_there(server, register, cache):
    server.files["second.pt"] = b"second"
    first = remote(server.url("good"))
    second = remote(server.url("good", "second.pt"), b"second", name="second.pt")
    register(first, second, name="pair")
    put(cache, NAME, CONTENT)
    assert find_weights("pair") is None
    assert drain(download("pair")) == (cache / NAME, cache / "second.pt")
    assert server.requests == ["/good/second.pt"]
    assert find_weights("pair") == (cache / NAME, cache / "second.pt")


def test_the_embedded_model_needs_neither_network_nor_cache_folder(server, monkeypatch, cache):
    monkeypatch.setattr(socket, "socket", None)
    (path,) = drain(download("lightsam"))
    assert path.name == "lightsam.safetensors"
    assert find_weights("lightsam") == (path,)
    assert not cache.exists()


def test_nothing_but_download_touches_the_network(server, register, monkeypatch, cache):
    register(remote(server.url("good")))
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(socket, "create_connection", None)
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert find_weights("tiny") is None
    assert not any(status.available for status in list_models(verify=True) if not status.embedded)
    assert not cache.exists()


# --- downloads that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"is not there \(HTTP 404\)"),
        ("gone", r"is not there \(HTTP 410\)"),
        ("forbidden", r"refused \(HTTP 403\)"),
        ("broken", r"answered with HTTP 503"),
        ("truncated", r"broke off after 524,288 of 1,048,576 bytes"),
        ("unannounced", r"gave 524,288 bytes instead of 1,048,576"),
        ("empty", r"gave 0 bytes"),
        ("wrong", r"is not the published tiny.pt: expected sha256"),
    ],
)
@pytest.mark.parametrize("before", ["nothing", "damaged file"])
def test_a_failed_download_is_one_clear_error_and_keeps_no_half_file(
    server, register, cache, how, message, before
):
    register(remote(server.url(how)))
    if before == "damaged file":
        put(cache, NAME, CONTENT[:1000])
    with pytest.raises(DownloadError, match=message):
        drain(download("tiny"))
    assert in_folder(cache) == ([NAME] if before == "damaged file" else [])
    assert not is_available("tiny")


def test_a_login_page_in_place_of_the_file_is_recognised(server, register, cache):
    register(remote(server.url("page"), size=False))
    with pytest.raises(DownloadError, match="It is a web page: a login or proxy page"):
        drain(download("tiny"))
    assert in_folder(cache) == []


def test_without_a_network_the_error_says_how_to_bring_the_file(register, cache):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    register(remote(f"http://127.0.0.1:{port}/{NAME}"))
    with pytest.raises(DownloadError, match=r"cannot be reached.*lightsam models import"):
        drain(download("tiny"))
    assert in_folder(cache) == []


def test_a_full_disk_is_named_and_nothing_is_kept(server, register, cache, monkeypatch):
    import pooch.downloaders

    class FullDisk:
        def __init__(self, path, mode):
            self.file = builtins.open(path, mode)  # noqa: SIM115 (closed by the downloader)
            self.room = 300_000

        def write(self, data):
            self.room -= len(data)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(pooch.downloaders, "open", FullDisk, raising=False)
    register(remote(server.url("good")))
    with pytest.raises(DownloadError, match=r"No space left in .*cache.*LIGHTSAM_CACHE"):
        drain(download("tiny"))
    assert in_folder(cache) == []


def test_a_file_larger_than_the_free_space_is_not_even_begun(server, register, cache):
    register(RemoteFile(NAME, server.url("good"), 10**18, sha256(CONTENT)))
    with pytest.raises(DownloadError, match="needs 1,000,000,000,000,000,000 bytes"):
        drain(download("tiny"))
    assert server.requests == []
    assert in_folder(cache) == []


def test_a_cache_folder_that_cannot_be_made_is_named(server, register, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path / "file" / "cache"))
    register(remote(server.url("good")))
    with pytest.raises(DownloadError, match=r"file.cache.*Set LIGHTSAM_CACHE"):
        drain(download("tiny"))
    assert server.requests == []


def test_a_read_only_file_system_is_named(server, register, cache, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    register(remote(server.url("good")))
    with pytest.raises(DownloadError, match=r"cache cannot be written. Set LIGHTSAM_CACHE"):
        drain(download("tiny"))
    assert server.requests == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_read_only_cache_folder_is_named(server, register, cache):
    cache.mkdir()
    cache.chmod(0o555)
    register(remote(server.url("good")))
    with pytest.raises(DownloadError, match="cannot be written"):
        drain(download("tiny"))


@pytest.mark.parametrize("how", ["slow", "stalling"])
def test_closing_the_generator_cancels_within_a_second_and_leaves_nothing(server, register, cache, how):
    register(remote(server.url(how)))
    work = download("tiny")
    for step in work:
        if step.done > 0:
            break
    began = time.monotonic()
    work.close()
    assert time.monotonic() - began < 1.0
    server.release.set()
    deadline = time.monotonic() + 5
    while in_folder(cache) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert in_folder(cache) == []
    assert find_weights("tiny") is None


def test_what_a_killed_process_left_is_swept_a_day_later_and_never_counts(server, register, cache):
    register(remote(server.url("good")))
    old = put(cache, f".{NAME}.abc.part", CONTENT[:10])
    recent = put(cache, f".{NAME}.def.part", CONTENT[:10])
    os.utime(old, (time.time() - 90_000,) * 2)
    assert find_weights("tiny") is None
    drain(download("tiny"))
    assert in_folder(cache) == sorted([recent.name, NAME])


def test_two_processes_that_download_at_once_both_end_with_the_whole_file(server, cache):
    script = f"""
from napari_lightsam.engine.download import download
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.registry import MODELS, ModelEntry, RemoteFile
from napari_lightsam.model.spec import ModelSpec
file = RemoteFile({NAME!r}, {server.url("slow")!r}, {len(CONTENT)}, {sha256(CONTENT)!r})
MODELS["tiny"] = ModelEntry(ModelSpec("tiny", "Tiny"), (file,))
print(drain(download("tiny"))[0])
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == [str(cache / NAME)] * 2
    assert len(server.requests) == 2  # they did overlap
    assert in_folder(cache) == [NAME]
    assert (cache / NAME).read_bytes() == CONTENT


# --- files without a published hash ------------------------------------------------------------------


@pytest.fixture
def unpublished(server, register):
    server.files[NAME] = CHECKPOINT
    register(remote(server.url("good"), CHECKPOINT, size=False, known=False))


def test_a_file_without_a_published_hash_needs_explicit_consent(unpublished, server, cache):
    assert next(status for status in list_models() if status.name == "tiny").needs_consent
    with pytest.raises(DownloadError, match=r"No hash is published for tiny\.pt.*consent"):
        drain(download("tiny"))
    assert server.requests == []


def test_what_came_first_is_pinned_and_accepted_without_asking_again(unpublished, cache):
    (path,) = drain(download("tiny", consent=True))
    pin = json.loads((cache / f"{NAME}.pinned.json").read_text())
    assert pin["sha256"] == hashlib.sha256(CHECKPOINT).hexdigest()
    path.unlink()
    assert drain(download("tiny")) == find_weights("tiny") == (path,)


def test_another_content_than_the_pinned_is_an_error_even_with_consent(unpublished, server, cache):
    (path,) = drain(download("tiny", consent=True))
    path.unlink()
    server.files[NAME] = OTHER_CHECKPOINT
    with pytest.raises(DownloadError, match="differs from the file that was accepted first"):
        drain(download("tiny", consent=True))
    put(cache, NAME, OTHER_CHECKPOINT)
    with pytest.raises(WeightsError, match="is not what it claims to be"):
        find_weights("tiny")


def test_an_error_page_is_never_pinned(server, register, cache):
    register(remote(server.url("page"), size=False, known=False))
    with pytest.raises(WeightsError, match="web page"):
        drain(download("tiny", consent=True))
    assert in_folder(cache) == []


def test_a_damaged_pin_is_an_error_and_not_a_free_pass(unpublished, cache):
    drain(download("tiny", consent=True))
    (cache / f"{NAME}.pinned.json").write_text("{")
    with pytest.raises(WeightsError, match=r"pinned\.json is damaged"):
        find_weights("tiny")


# --- mirrors, shared folders, what lies in the cache -------------------------------------------------


def test_a_mirror_is_asked_for_the_registry_name_and_still_verified(server, register, monkeypatch, cache):
    register(remote("https://example.invalid/elsewhere/weights.bin"))
    monkeypatch.setenv("LIGHTSAM_MIRROR", server.url("good", ""))
    drain(download("tiny"))
    assert server.requests == [f"/good/{NAME}"]
    (cache / NAME).unlink()
    monkeypatch.setenv("LIGHTSAM_MIRROR", server.url("wrong", ""))
    with pytest.raises(DownloadError, match="is not the published"):
        drain(download("tiny"))


def test_a_mirror_that_is_no_web_address_is_refused(register, monkeypatch, tmp_path):
    register(remote("https://example.invalid/weights.bin"))
    monkeypatch.setenv("LIGHTSAM_MIRROR", str(tmp_path))
    with pytest.raises(DownloadError, match=r"no web address.*LIGHTSAM_MODEL_PATH"):
        drain(download("tiny"))


def test_shared_folders_are_searched_before_the_cache_in_their_order(register, monkeypatch, tmp_path, cache):
    register(remote("https://example.invalid/weights.bin"))
    shared = [tmp_path / "one", tmp_path / "two"]
    monkeypatch.setenv("LIGHTSAM_MODEL_PATH", os.pathsep.join(map(str, shared)))
    assert search_folders() == (*shared, cache)
    put(cache, NAME, CONTENT)
    assert find_weights("tiny") == (cache / NAME,)
    put(shared[1], NAME, CONTENT)
    assert find_weights("tiny") == (shared[1] / NAME,)
    put(shared[0], NAME, CONTENT[:-1])  # damaged: passed over
    assert find_weights("tiny") == (shared[1] / NAME,)


def test_an_unpinned_file_in_a_shared_folder_is_not_trusted_by_itself(unpublished, monkeypatch, tmp_path):
    shared = put(tmp_path / "shared", NAME, CHECKPOINT)
    monkeypatch.setenv("LIGHTSAM_MODEL_PATH", str(shared.parent))
    with pytest.raises(WeightsError, match="no published hash and was not accepted before"):
        find_weights("tiny")
    import_weights(shared, "tiny")
    assert find_weights("tiny") == (shared,)


def test_a_cached_file_that_was_changed_since_is_refused_and_replaced_by_a_download(server, register, cache):
    register(remote(server.url("good")))
    (path,) = drain(download("tiny"))
    assert is_available("tiny")
    path.write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(WeightsError, match="is not what it claims to be"):
        find_weights("tiny")
    status = next(status for status in list_models(verify=True) if status.name == "tiny")
    assert not status.available
    assert "not what it claims" in status.problem
    assert drain(download("tiny")) == (path,) == find_weights("tiny")


def test_a_cached_file_is_read_for_verification_once_per_process(register, cache, monkeypatch):
    register(remote("https://example.invalid/weights.bin"))
    put(cache, NAME, CONTENT)
    reads = []
    original = verify.file_hash
    monkeypatch.setattr(verify, "file_hash", lambda *given: reads.append(1) or original(*given))
    for _ in range(3):
        assert is_available("tiny")
    assert len(reads) == 1


def test_by_default_the_cache_is_the_users_own(monkeypatch):
    monkeypatch.delenv("LIGHTSAM_CACHE")
    folder = cache_folder()
    assert folder.is_absolute()
    assert "napari-lightsam" in folder.parts
    assert Path.home() in folder.parents or "XDG_CACHE_HOME" in os.environ


def test_the_list_tells_what_is_here_and_what_it_would_cost(register, cache):
    register(remote("https://example.invalid/weights.bin"))
    before = {status.name: status for status in list_models()}
    assert list(before) == list(MODELS)
    assert (before["lightsam"].available, before["lightsam"].embedded) == (True, True)
    assert before["lightsam"].path.stat().st_size == before["lightsam"].size
    assert (before["tiny"].available, before["tiny"].path, before["tiny"].size) == (False, None, len(CONTENT))
    assert before["mobile_sam"].licence == "Apache-2.0"
    put(cache, NAME, CONTENT)
    after = {status.name: status for status in list_models()}
    assert (after["tiny"].available, after["tiny"].path) == (True, cache / NAME)


def test_an_unknown_name_is_an_error_everywhere():
    for ask in (find_weights, is_available, lambda name: drain(download(name))):
        with pytest.raises(WeightsError, match=r"no model named 'tinysm'.*tinysam"):
            ask("tinysm")


# --- files the user brings ---------------------------------------------------------------------------


def test_a_file_the_user_brings_is_recognised_by_its_hash_under_any_name(register, tmp_path, cache):
    register(remote("https://example.invalid/weights.bin"))
    brought = put(tmp_path, "download (1).bin", CONTENT)
    assert identify(brought) == "tiny"
    assert import_weights(brought) == cache / NAME
    assert find_weights("tiny") == (cache / NAME,)
    assert brought.exists()
    assert in_folder(cache) == [NAME]


@pytest.mark.parametrize("name", [None, "tiny"])
def test_a_file_that_is_no_known_model_is_not_imported(register, tmp_path, cache, name):
    register(remote("https://example.invalid/weights.bin"))
    brought = put(tmp_path, NAME, CONTENT[:-1])
    with pytest.raises(WeightsError, match="needs no import: give its path as the model"):
        import_weights(brought, name)
    assert in_folder(cache) == []
    assert identify(brought) is None


def test_a_file_without_a_published_hash_is_imported_by_name_and_pinned(unpublished, tmp_path, cache):
    brought = put(tmp_path, "somewhere.pth", CHECKPOINT)
    with pytest.raises(WeightsError, match="also give its name"):
        import_weights(brought)
    assert import_weights(brought, "tiny") == cache / NAME
    assert find_weights("tiny") == (cache / NAME,)
    brought.write_bytes(OTHER_CHECKPOINT)
    with pytest.raises(DownloadError, match="differs from the file that was accepted first"):
        import_weights(brought, "tiny")


def test_importing_something_that_is_no_checkpoint_pins_nothing(unpublished, tmp_path, cache):
    with pytest.raises(WeightsError, match="no checkpoint"):
        import_weights(put(tmp_path, "notes.txt", b"hello, this is a text"), "tiny")
    assert in_folder(cache) == []


def test_importing_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="There is no file"):
        import_weights(tmp_path / "nothing.pt")
