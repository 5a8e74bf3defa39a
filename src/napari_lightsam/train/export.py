"""Write trained weights as the small file that the package ships and `load_segmenter` reads.

The embedded model is made by::

    python -m napari_lightsam.train.export trained.pt src/napari_lightsam/weights/lightsam.safetensors
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import Tensor

from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.registry import find_model
from napari_lightsam.formats.atomic import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["export_weights"]

_HEADS = ("image_encoder.norm_head.", "image_encoder.head.")
_POSITIONS = "positional_encoding_gaussian_matrix"


def export_weights(
    source: str | Path,
    target: str | Path,
    *,
    spec: str = "lightsam",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Convert a checkpoint to fp16 safetensors that say what model they are.

    Weight matrices become float16. Vectors (biases, norms, batch-norm statistics) and the position
    encoding's frequencies stay float32: together 1% of the size, and a batch-norm variance can be too
    small or too large for half precision. The unused classification head is left out. Equal input gives
    equal bytes.

    Parameters
    ----------
    source
        Checkpoint in any layout that `read_checkpoint` knows.
    target
        File to write, replaced atomically.
    spec
        Name of the registry entry whose preprocessing the weights were trained with.
    metadata
        Further entries of the file's header. `name`, `title`, `trained_on`, `not_trained_on`, `licence`,
        `citation` and `source` replace those of the named spec when the file is loaded by path.

    Returns
    -------
    Path
        The written file.

    Raises
    ------
    WeightsError
        The source is no checkpoint of this family, or `spec` is no known model.
    FileError
        The target cannot be written.
    """
    windows = ",".join(str(side) for side in find_model(spec).spec.small_windows)
    checkpoint = read_checkpoint(source)
    tensors = {
        name: _shrink(name, tensor)
        for name, tensor in sorted(checkpoint.tensors.items())
        if not name.startswith(_HEADS)
    }
    header = {
        "format": "napari-lightsam",
        "spec": spec,
        "source_sha256": checkpoint.sha256,
        **({"small_windows": windows} if windows else {}),
        **(metadata or {}),
    }
    target = Path(target)
    with written_whole(target) as part:
        part.write_bytes(_with_metadata(save(tensors), header))
    return target


def _shrink(name: str, tensor: Tensor) -> Tensor:
    """Halve weight matrices; leave what half precision would hurt."""
    if tensor.ndim < 2 or not tensor.is_floating_point() or name.endswith(_POSITIONS):
        return tensor.contiguous()
    return tensor.to(torch.float16).contiguous()


def _with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put metadata into a safetensors header in sorted order (the library's own order is random)."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors must start at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def main() -> None:
    """Command line of this module, for contributors."""
    parser = argparse.ArgumentParser(description=export_weights.__doc__.partition("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--spec", default="lightsam")
    arguments = parser.parse_args()
    export_weights(arguments.source, arguments.target, spec=arguments.spec)


if __name__ == "__main__":
    main()
