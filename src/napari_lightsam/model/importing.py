"""Importing packages without others that they would bring along."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any

__all__ = ["import_timm", "import_without"]

_importing = threading.Lock()


def import_without(hidden: str, name: str) -> Any:
    """Import a package as if another one was not installed.

    Raises
    ------
    ImportError
        The package is not installed, or does not start.

    Examples
    --------
    >>> import_without("this_package_is_not_there", "json").__name__
    'json'
    """
    with _importing:
        before = sys.modules.get(hidden)
        sys.modules[hidden] = None  # type: ignore[assignment]  # Python's own way to say "cannot be imported"
        try:
            return importlib.import_module(name)
        finally:
            if before is None:
                del sys.modules[hidden]
            else:
                sys.modules[hidden] = before


def import_timm() -> Any:
    """Import timm, also where a napari window is open.

    torchvision, which timm imports, imports triton, which we do not use. triton and Mesa's OpenGL drivers
    each bring an LLVM of their own; on Linux the process dies with a segmentation fault when triton is
    loaded after a window was opened.
    """
    beside_a_window = sys.platform == "linux" and "vispy" in sys.modules
    if beside_a_window and "triton" not in sys.modules:
        return import_without("triton", "timm")
    return importlib.import_module("timm")
