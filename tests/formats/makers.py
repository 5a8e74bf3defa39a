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


def write_nd2(path: Path, pixels: np.ndarray, names: list[str], steps: tuple[float, float]) -> None:
    """Write an ND2 file.

    Parameters
    ----------
    path
        File to write.
    pixels
        uint16 (Z, C, Y, X).
    names
        Of the channels.
    steps
        Distance of planes, and side of a pixel, in micrometres.
    """
    depth, channels, height, width = pixels.shape
    size = {"uiWidth": width, "uiHeight": height, "uiWidthBytes": 2 * width * channels, "uiComp": channels}
    depths = {"uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiSequenceCount": depth, "eCompression": 2}
    probe = {"m_sName": ""}
    planes = {
        f"a{i}": {"uiCompCount": 1, "sDescription": name, "pFluorescentProbe": probe}
        for i, name in enumerate(names)
    }
    picture = {
        "bCalibrated": True, "dCalibration": steps[1],
        "sPicturePlanes": {"uiCount": channels, "uiCompCount": channels, "sPlaneNew": planes},
    }  # fmt: skip
    loop = {"uiCount": depth, "dZStep": steps[0], "dZLow": 0.0, "dZHigh": steps[0] * (depth - 1), "iType": 0}
    chunks = {
        "ImageAttributesLV!": _level("SLxImageAttributes", size | depths),
        "ImageMetadataLV!": _level("SLxExperiment", {"eType": 4, "uLoopPars": loop}),
        "ImageMetadataSeqLV|0!": _level("SLxPictureMetadata", picture),
    }
    chunks["CustomData|AcqTimesCache!"] = struct.pack(f"<{depth}d", *range(depth))
    for z in range(depth):  # eight bytes of time, then the samples of each pixel together
        chunks[f"ImageDataSeq|{z}!"] = bytes(8) + pixels[z].transpose(1, 2, 0).tobytes()
    file = _chunk("ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32)
    listed = b""
    for name, content in chunks.items():
        listed += name.encode() + struct.pack("<QQ", len(file), len(content))
        file += _chunk(name, content)
    end, last = len(file), b"ND2 CHUNK MAP SIGNATURE 0000001!"
    listed += last + struct.pack("<Q", end)
    path.write_bytes(file + _chunk("ND2 FILEMAP SIGNATURE NAME 0001!", listed))


def _chunk(name: str, content: bytes, room: int = 4072) -> bytes:
    return struct.pack("<IIQ", 0x0ABECEDA, room, len(content)) + name.encode().ljust(room, b"\0") + content


def _value(name: str, value: object) -> bytes:
    if isinstance(value, dict):
        return _level(name, value)
    if isinstance(value, str):
        return _head(8, name) + (value + "\0").encode("utf-16-le")
    kind, code = {bool: (1, "<B"), int: (3, "<I"), float: (6, "<d")}[type(value)]
    return _head(kind, name) + struct.pack(code, value)


def _level(name: str, values: dict[str, object]) -> bytes:
    content = b"".join(_value(key, value) for key, value in values.items())
    head = _head(11, name)
    offsets = bytes(8 * len(values))
    return head + struct.pack("<IQ", len(values), len(head) + 12 + len(content)) + content + offsets


def _head(kind: int, name: str) -> bytes:
    return struct.pack("<BB", kind, len(name) + 1) + (name + "\0").encode("utf-16-le")
