"""Small files as microscopes write them, for the readers of others: nobody else's writer is at hand."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def write_lif(path: Path, pixels: np.ndarray, names: list[str], steps: tuple[float, float, float]) -> None:
    """Write a LIF file.

    Parameters
    ----------
    path
        File to write.
    pixels
        uint16 (Z, C, Y, X).
    names
        Of the channels.
    steps
        Distances of planes, rows and columns in micrometres.
    """
    depth, _, height, width = pixels.shape
    strides = dict(zip("ZCYX", pixels.strides, strict=True))
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
        f'Max="65535" Unit="" LUTName="{name}" IsLUTInverted="0" BytesInc="{i * strides["C"]}" BitInc="0"/>'
        for i, name in enumerate(names)
    )
    axes = ((1, width, steps[2], "X"), (2, height, steps[1], "Y"), (3, depth, steps[0], "Z"))
    dimensions = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{n}" Origin="0" '
        f'Length="{step * 1e-6 * (n - 1):.12e}" Unit="m" BitInc="0" BytesInc="{strides[axis]}"/>'
        for number, n, step, axis in axes
    )
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="a" Visibility="1" CopyOption="1">'
        '<Memory Size="0" MemoryBlockID="MemBlock_0"/><Children><Element Name="cells">'
        f"<Data><Image><ImageDescription><Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions>"
        f'</ImageDescription></Image></Data><Memory Size="{pixels.nbytes}" MemoryBlockID="MemBlock_1"/>'
        "</Element></Children></Element></LMSDataContainerHeader>"
    )
    data = _block(struct.pack("<B", 0x2A) + _text(xml))
    for name, content in (("MemBlock_0", b""), ("MemBlock_1", pixels.tobytes())):
        data += _block(struct.pack("<BQB", 0x2A, len(content), 0x2A) + _text(name)) + content
    path.write_bytes(data)


def _block(content: bytes) -> bytes:
    return struct.pack("<II", 0x70, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode("utf-16-le")
