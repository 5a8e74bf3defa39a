"""Whether an image that a file declares can be true and fits into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from napari_lightsam.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path


def check_memory(path: Path, n_bytes: int) -> None:
    """Refuse an image before anything is allocated when its header cannot be true or it cannot fit.

    Raises
    ------
    FileError
        The header declares more than this machine's memory, or over 1 GiB and more than any compression
        could have packed into the file.
    """
    check_declared(path, n_bytes)
    check_fits(path, n_bytes)


def check_declared(path: Path, n_bytes: int) -> None:
    """Refuse a size that cannot be true.

    Raises
    ------
    FileError
        It is over 1 GiB and more than any compression could have packed into the file.
    """
    size = path.stat().st_size
    declared = f"{path} declares an image of {n_bytes / 2**30:,.1f} GiB"
    # 1,100 lies just above the best ratio that deflate reaches, on constant data.
    if n_bytes > 2**30 and n_bytes > 1100 * size:
        raise FileError(f"{declared} but holds {size:,} bytes: it is damaged. Export it again.")


def check_fits(path: Path | str, n_bytes: int) -> None:
    """Refuse what is larger than this machine's memory.

    Raises
    ------
    FileError
        It is.
    """
    memory = psutil.virtual_memory().total
    if n_bytes > memory:
        declared = f"{path} declares an image of {n_bytes / 2**30:,.1f} GiB"
        raise FileError(
            f"{declared}, and this machine has {memory / 2**30:,.1f} GiB of memory. "
            "Save the planes or regions you need as smaller files."
        )
