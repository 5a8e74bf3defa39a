"""Embeddings kept on disk: a block that was encoded once is read back, bit for bit, at the next visit.

One zarr file a block, named by a hash of everything that it depends on: the pixels as the network is fed them
(and so their normalisation, scale and place in the layout of blocks), weights, int8 encoder, runtime,
precision and the library's version. A changed part of an image misses by itself, and nothing can be stale.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash

from napari_lightsam.engine.cache import cache_folder
from napari_lightsam.engine.folders import expanded
from napari_lightsam.engine.runtime import ForwardingRuntime
from napari_lightsam.engine.transfer import part_file
from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.runtime import Device, Runtime

LIMIT = 4 * 2**30
"""Bytes that embeddings take on disk, unless `LIGHTSAM_EMBEDDINGS_GIB` says otherwise."""

_LIMIT_VARIABLE = "LIGHTSAM_EMBEDDINGS_GIB"
_SUFFIX = ".zarr.zip"
_LAYOUT = 1  # of the files; another number makes other keys
_LOOKS = 32  # the folder is measured after every such part of its limit that was written
_ABANDONED = 24 * 3600.0  # seconds after which half a file is nobody's any more


def embeddings_folder() -> Path:
    """Folder of the embeddings, in the cache folder; it need not exist yet.

    Raises
    ------
    ConfigError
        There is no cache folder.
    """
    return cache_folder() / "embeddings"


def embeddings_limit() -> int:
    """Bytes that embeddings may take: `LIGHTSAM_EMBEDDINGS_GIB`, else 4 GiB.

    Raises
    ------
    ConfigError
        The variable is no number from 0.
    """
    given = os.environ.get(_LIMIT_VARIABLE, "").strip()
    try:
        limit = float(given) if given else LIMIT / 2**30
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise ConfigError(f"{_LIMIT_VARIABLE} is a number of GiB from 0; got {given!r}.")
    return int(limit * 2**30)


class EmbeddingStore:
    """A folder of encoded blocks, the least recently used removed first.

    Safe to use from any thread and from several processes at once. A file gets its name when it is whole;
    damaged ones are removed and count as missing. Where the folder takes no file, one warning says so, and
    what is there is still read.

    Parameters
    ----------
    folder
        Made when it is first written to; None: `embeddings_folder()`.
    limit
        Bytes; None: `embeddings_limit()`.

    Raises
    ------
    ConfigError
        The limit in the environment is no number.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = EmbeddingStore(folder)
    ...     store.put("a1", torch.ones(1, 2, 4, 4, dtype=torch.bfloat16))
    ...     store.get("a1").dtype, len(store.entries())
    (torch.bfloat16, 1)
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int | None = None) -> None:
        self.folder = embeddings_folder() if folder is None else expanded(folder).absolute()
        self.limit = embeddings_limit() if limit is None else limit
        self._unmeasured = self.limit  # the first write measures the folder
        self._writable = True

    def get(self, key: str) -> Tensor | None:
        """Return a block's tokens as they were put, on the CPU; None where they are not, or damaged."""
        path = self._path(key)
        if not os.path.isfile(path):
            return None
        try:
            tokens = _read(path, key)
        except OSError:  # another process may just have removed it
            return None
        except Exception:  # whatever is wrong in a file, encoding the block again makes it good
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)  # recently used
        return tokens

    def put(self, key: str, tokens: Tensor) -> None:
        """Keep a block's tokens, and make room for them."""
        path = self._path(key)
        size = tokens.numel() * tokens.element_size()
        if not self._writable or size > self.limit:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part_file(path) as part:
                _write(part, key, tokens)
                _name(part, path)
        except OSError as error:
            self._give_up(error)
            return
        self._unmeasured += size
        if self._unmeasured >= self.limit // _LOOKS:
            self._unmeasured = 0
            self.shrink()

    def _give_up(self, error: OSError) -> None:
        self._writable = False
        tell(
            f"Embeddings cannot be kept in {self.folder} ({error.strerror or error}); they are computed "
            "again next time. Free some space, or set LIGHTSAM_CACHE to a folder that can be written.",
            stacklevel=2,
        )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def entries(self) -> list[tuple[Path, int, float]]:
        """List the files: path, bytes, and time of last use in seconds since the epoch."""
        found = []
        for path in self.folder.glob(f"*/*{_SUFFIX}"):
            with suppress(OSError):  # another process may just have removed it
                state = path.stat()
                found.append((path, state.st_size, state.st_mtime))
        return found

    def shrink(self, limit: int | None = None) -> int:
        """Remove the least recently used embeddings down to a limit, and half files of dead processes.

        Parameters
        ----------
        limit
            Bytes; None: the store's own; 0 removes all.

        Returns
        -------
        int
            Bytes removed.
        """
        limit = self.limit if limit is None else limit
        for part in self.folder.glob("*/.*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _ABANDONED:
                    part.unlink()
        entries = sorted(self.entries(), key=lambda entry: entry[2])
        total, removed = sum(size for _, size, _ in entries), 0
        for path, size, _ in entries:
            if total - removed <= limit:
                break
            with suppress(OSError):
                path.unlink(missing_ok=True)
                removed += size
        return removed


class StoredRuntime(ForwardingRuntime):
    """A runtime that looks a block up in a store before it encodes it.

    Parameters
    ----------
    runtime
        Encodes and decodes.
    store
        Keeps what was encoded.
    weights_hash
        Of the model.
    """

    def __init__(self, runtime: Runtime, store: EmbeddingStore, weights_hash: str) -> None:
        self._runtime, self.store = runtime, store
        self._weights_hash = weights_hash

    @property
    def runtime(self) -> Runtime:
        """The runtime that encodes and decodes."""
        return self._runtime

    def encode(self, frame: FloatArray) -> Tensor:
        """Embed one frame, as `Runtime.encode`, or read how it was embedded before."""
        key = signature(frame, self._weights_hash, self.device)
        kept = self.store.get(key)
        if kept is not None:
            return kept.to(self.device.name)
        tokens = self.runtime.encode(frame)
        self.store.put(key, tokens)
        return tokens


def with_store(runtime: Runtime, cache: bool | str | os.PathLike[str], weights_hash: str) -> Runtime:
    """Give a runtime a store, as the `cache` of `load_segmenter` says."""
    if cache is False or cache is None:
        return runtime
    if cache is True:
        try:
            cache = embeddings_folder()
        except ConfigError as error:
            tell(f"Embeddings are not kept. {error}", stacklevel=3)
            return runtime
    return StoredRuntime(runtime, EmbeddingStore(cache), weights_hash)


def signature(frame: FloatArray, weights_hash: str, device: Device) -> str:
    """Hash everything that a block's tokens depend on.

    Parameters
    ----------
    frame
        float32 (3, h, w), the standardised input of the network.
    weights_hash
        Of the model.
    device
        Where and how it is encoded.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    version = torch.__version__ if device.runtime == "torch" else importlib.metadata.version(device.runtime)
    kind = device.name.partition(":")[0]
    facts = (
        _LAYOUT, frame.shape, weights_hash, device.runtime, str(version), kind, device.precision,
        *filter(None, [device.encoder]),
    )  # fmt: skip
    digest = xxhash.xxh3_128(repr(facts).encode())
    digest.update(np.ascontiguousarray(frame, np.float32).data)
    return digest.hexdigest()


def _name(part: Path, path: Path) -> None:
    """Give a file its name, which says all of what is in it: one that is being read can stay (on Windows)."""
    try:
        os.replace(part, path)
    except PermissionError:
        if not os.path.isfile(path):
            raise


def _write(path: Path, key: str, tokens: Tensor) -> None:
    """Write tokens with all that is needed to find them damaged and to restore their place in memory."""
    import zarr
    from zarr.storage import ZipStore

    strides = tokens.stride()
    order = sorted(range(tokens.ndim), key=lambda axis: -strides[axis])
    laid_out = tokens.detach().cpu().permute(order).contiguous()
    values = _to_bits(laid_out)
    facts: dict[str, Any] = {
        "key": key,
        "order": order,
        "dtype": str(tokens.dtype).removeprefix("torch."),
        "digest": _digest(values),
    }
    with ZipStore(path, mode="w") as store:
        # Bits of floats hardly get smaller, and compressing them takes longer than writing them.
        array = zarr.create_array(
            store, shape=values.shape, chunks=values.shape, dtype=values.dtype, compressors=None,
            attributes=facts,
        )  # fmt: skip
        array[...] = values


def _read(path: Path, key: str) -> Tensor:
    """Read tokens; raises whatever is wrong with the file."""
    import zarr
    from zarr.storage import ZipStore

    with ZipStore(path, mode="r") as store:
        array = zarr.open_array(store, mode="r")
        facts, values = dict(array.attrs), np.asarray(array[...])
    # A chunk that is missing reads as zeros, so the values need a check of their own.
    if facts["key"] != key or facts["digest"] != _digest(values):
        raise ValueError(f"{path} is not what it claims to be")
    order: list[int] = facts["order"]  # type: ignore[assignment]
    dtype: torch.dtype = getattr(torch, str(facts["dtype"]))
    bits = torch.from_numpy(values.view(np.int16) if dtype is torch.bfloat16 else values)
    return bits.view(dtype).permute([order.index(axis) for axis in range(len(order))])


def _to_bits(tokens: Tensor) -> NDArray[Any]:
    """Return the values as NumPy holds them; bfloat16, which it does not know, as whole numbers."""
    if tokens.dtype is torch.bfloat16:
        return tokens.view(torch.int16).numpy().view(np.uint16)
    return tokens.numpy()


def _digest(values: NDArray[Any]) -> str:
    return str(xxhash.xxh3_128_hexdigest(repr((values.shape, str(values.dtype))).encode() + values.tobytes()))
