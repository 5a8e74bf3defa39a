"""Fetch one file over HTTP: progress, cancellation, and errors in words; nothing half-done stays."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.errors import DownloadError, LightSamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Meter", "explain", "fetch_url", "in_background", "part_file"]

T = TypeVar("T")

_CHUNK = 1 << 17
_TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two packets
_STALE = 24 * 3600.0
_ELSEWHERE = (
    "Without internet here: fetch {url} on another computer and run `lightsam models import FILE`, put the "
    "file into a folder named in LIGHTSAM_MODEL_PATH, or name a mirror in LIGHTSAM_MIRROR."
)


class _CancelledError(Exception):
    """The consumer closed the generator."""


class Meter:
    """Counts bytes for a consumer in another thread; stops the producer when that consumer is gone.

    It has the methods that pooch expects of a progress bar.
    """

    def __init__(self) -> None:
        self.stage = ""
        self.total = 0
        self.done = 0
        self.cancelled = threading.Event()

    def start(self, stage: str, total: int) -> None:
        """Begin a new stage."""
        self.stage, self.total, self.done = stage, total, 0

    def update(self, count: int) -> None:
        """Count bytes; raises when the consumer is gone."""
        if self.cancelled.is_set():
            raise _CancelledError
        self.done += count

    def reset(self) -> None:
        """Count from zero again."""
        self.done = 0

    def close(self) -> None:
        """Do nothing; the consumer reads the last state."""


def in_background(job: Callable[[Meter], T]) -> Work[T]:
    """Run a blocking job in a thread and report how far it is.

    Closing the generator returns at once; the job stops at its next block and cleans up after itself.
    """
    meter = Meter()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(job(meter))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="lightsam-download", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
            total = meter.total
            yield Progress(meter.stage, min(meter.done, total) if total else meter.done, total)
    finally:
        meter.cancelled.set()
        thread.join(0.5)
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def part_file(target: Path) -> Iterator[Path]:
    """Give a temporary file beside `target`; it is gone afterwards unless it was moved into place.

    Every process has its own, so that two downloads of one file cannot mix.
    """
    _sweep(target)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _sweep(target: Path) -> None:
    """Remove what killed processes left of this file, a day later."""
    for old in target.parent.glob(f".{target.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _STALE:
                old.unlink()


def fetch_url(url: str, part: Path, meter: Meter, expected_bytes: int = 0) -> None:
    """Download into `part`.

    Parameters
    ----------
    url
        http or https.
    part
        Existing file, overwritten.
    meter
        Told of every block.
    expected_bytes
        What the meter shows as total until the server tells.

    Raises
    ------
    DownloadError
        One sentence on what went wrong (offline, refused, missing, broken off, no space) and what to do.
    """
    import pooch

    meter.start(f"downloading {url.rsplit('/', 1)[-1]}", expected_bytes)
    downloader = pooch.HTTPDownloader(progressbar=meter, chunk_size=_CHUNK, timeout=_TIMEOUT)
    try:
        downloader(url, str(part), None)
    except (_CancelledError, LightSamError):
        raise
    except Exception as error:
        raise explain(error, url, part, meter.total) from error


def explain(error: Exception, url: str, part: Path, total: int = 0) -> DownloadError:
    """Put the failure of a download into words."""
    import requests.exceptions as http

    elsewhere = _ELSEWHERE.format(url=url)
    received = part.stat().st_size if part.exists() else 0
    host = url.split("/")[2] if url.count("/") > 2 else url
    if isinstance(error, http.HTTPError):
        return _refused(error, url)
    if isinstance(error, (http.MissingSchema, http.InvalidSchema, http.InvalidURL)):
        return DownloadError(f"{url} is no web address (http:// or https://). Check LIGHTSAM_MIRROR.")
    if isinstance(error, http.SSLError):
        return DownloadError(
            f"No secure connection to {host}: {_short(error)}. A company proxy may need its certificate: "
            f"name it in REQUESTS_CA_BUNDLE. {elsewhere}"
        )
    if isinstance(error, http.ProxyError):
        return DownloadError(f"The proxy (HTTPS_PROXY) does not let through to {host}. {elsewhere}")
    if received and isinstance(error, http.RequestException):
        of = f" of {total:,}" if total else ""
        return DownloadError(
            f"The connection to {host} broke off after {received:,}{of} bytes; nothing was kept. Try again."
        )
    if isinstance(error, (http.ConnectionError, http.Timeout)):
        return DownloadError(f"{host} cannot be reached; is this computer online? {elsewhere}")
    if isinstance(error, OSError) and not isinstance(error, http.RequestException):
        return _cannot_write(error, part.parent, total)
    return DownloadError(f"{url} could not be downloaded: {_short(error)}. {elsewhere}")


def _refused(error: Exception, url: str) -> DownloadError:
    """Explain an HTTP error status."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (404, 410):
        return DownloadError(
            f"{url} is not there (HTTP {status}): the file was moved, or the mirror in LIGHTSAM_MIRROR does "
            "not hold it. A copy from elsewhere is taken by `lightsam models import FILE`."
        )
    if status in (401, 403, 407):
        return DownloadError(
            f"Access to {url} was refused (HTTP {status}): a proxy or mirror may want a login. A copy from "
            "elsewhere is taken by `lightsam models import FILE`."
        )
    return DownloadError(f"The server of {url} answered with HTTP {status}. Try again later.")


def _cannot_write(error: OSError, folder: Path, total: int) -> DownloadError:
    """Explain why the cache folder takes no file."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        need = f" ({total:,} bytes are needed)" if total else ""
        return DownloadError(
            f"No space left in {folder}{need}; nothing was kept. Free some, or set LIGHTSAM_CACHE to another "
            "disk."
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return DownloadError(f"{folder} cannot be written. Set LIGHTSAM_CACHE to a folder of your own.")
    return DownloadError(f"{folder} takes no file: {_short(error)}. Set LIGHTSAM_CACHE to another folder.")


def _short(error: Exception) -> str:
    """First line of an error's text."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
