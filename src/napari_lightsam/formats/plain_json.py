"""JSON with names of files in it, which on Linux may hold bytes that are no text."""

from __future__ import annotations

import json
from typing import Any


def to_json(content: Any, *, indent: int, allow_nan: bool = True) -> str:
    r"""Write plain values as JSON that UTF-8 can hold: what is no text stands as JSON writes a letter.

    Examples
    --------
    >>> print(to_json("caf\udce9", indent=1))
    "caf\udce9"
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=allow_nan)
    return text.encode(errors="backslashreplace").decode()
