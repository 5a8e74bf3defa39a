"""Read checkpoint files of every published layout, without ever running what is in them."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_lightsam.errors import WeightsError

__all__ = ["Checkpoint", "read_checkpoint"]

_PARTS = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
_ROOTS = "image_encoder|prompt_encoder|mask_decoder|proposal_head"  # the last in our own models
_CANONICAL = re.compile(rf"^(?:(?:module|sam|model|_orig_mod)\.)*((?:{_ROOTS})\..+)$")
_WRAPPERS = ("model_state", "state_dict", "model")
_NORMALISATION = ("pixel_mean", "pixel_std")  # buffers of SAM's preprocessing, which the spec holds
_USE_INSTEAD = "Use the file with the plain weights instead"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of one file under SAM's own names.

    Attributes
    ----------
    path
        The file.
    tensors
        Name -> tensor on the CPU, names starting with `image_encoder.`, `prompt_encoder.`,
        `mask_decoder.` or `proposal_head.`; other names are kept as they are. Floating point values are
        float32.
    sha256
        Of the file, hex.
    layout
        How the file holds them: "flat", "model", "model_state", "state_dict" or "MobileSAMv2 decoder".
    metadata
        Header entries of a safetensors file.
    ignored
        Names of what lay beside the weights (optimiser, epoch ...).
    """

    path: Path
    tensors: dict[str, Tensor]
    sha256: str
    layout: str
    metadata: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a safetensors or PyTorch checkpoint.

    The kind is told from the content, not from the file's extension. Only tensors are read
    (`torch.load(weights_only=True)`): a file that holds a pickled program is refused.

    Parameters
    ----------
    path
        Flat `state_dict`, or one under `model`, `model_state` or `state_dict`, with or without the
        prefixes `sam.`, `module.`; or MobileSAMv2's decoder file (`PromtEncoder`, `MaskDecoder`).

    Raises
    ------
    WeightsError
        The file is missing, empty, truncated, no checkpoint, a pickled program, or holds no tensor of a
        Segment Anything model.

    Examples
    --------
    >>> from napari_lightsam.engine.download import find_weights
    >>> checkpoint = read_checkpoint(find_weights("lightsam")[0])
    >>> checkpoint.layout, checkpoint.metadata["spec"]
    ('flat', 'lightsam')
    """
    path = Path(path)
    kind = _sniff(path)
    content: object
    metadata: dict[str, str]
    if kind == "safetensors":
        content, metadata = _load_safetensors(path)
    else:
        content, metadata = _load_torch(path, zipped=kind == "zip"), {}
    found, layout, ignored = _unwrap(content, path)
    tensors = {name: _as_float32(name, tensor, path) for name, tensor in found.items()}
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return Checkpoint(path, tensors, sha256, layout, metadata, ignored)


def _sniff(path: Path) -> str:
    """Tell "safetensors", "zip" or "pickle" from the first bytes; refuse the rest in words."""
    if os.path.isdir(path):
        raise WeightsError(f"{path} is a folder; the path of a checkpoint file is needed.")
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(512)
    except FileNotFoundError:
        raise WeightsError(f"There is no file {path}. Check the path, or name a known model.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    if size == 0:
        raise WeightsError(f"{path} is empty; fetch the file again.")
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x80"):
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if head.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path} is a web page, not a checkpoint: the site answered with a page (a login, a proxy or an "
            "error). Download the file itself (the 'raw' link) and try again."
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is only a Git LFS pointer; fetch the real file with `git lfs pull`.")
    raise WeightsError(
        f"{path} is no checkpoint (it starts with {head[:8]!r}). Accepted are safetensors files and PyTorch "
        "files (.pt, .pth) that hold a state_dict."
    )


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and header entries of a safetensors file."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is damaged or cut short ({path.stat().st_size:,} bytes): {error}. Fetch it again."
        ) from error


def _load_torch(path: Path, *, zipped: bool) -> object:
    """Unpickle tensors and nothing else; memory-mapped where the format allows."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in many ways: EOFError, RuntimeError, KeyError ...
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{path} is a TorchScript program, not weights, and is not run. {_USE_INSTEAD}."
            ) from error
        raise WeightsError(
            f"{path} is damaged, cut short or no PyTorch checkpoint ({path.stat().st_size:,} bytes): "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}. "
            "Fetch it again."
        ) from error


def _refusal(path: Path, message: str) -> WeightsError:
    """Say why a pickle is refused and what to use in its place."""
    named = re.search(r"(?:GLOBAL|global|class|type)[: ]+([A-Za-z_][\w.]*\.[A-Za-z_]\w*)", message)
    what = named.group(1) if named else ""
    if not what and "Unsupported" not in message:
        return WeightsError(f"{path} is damaged or no PyTorch checkpoint. Fetch it again.")
    refused = (
        f"{path} is a pickled program{f' (it asks for {what})' if what else ''}, not plain weights. "
        "Loading it could run any code, so it is refused. "
    )
    module = what.split(".", 1)[0]
    if module == "ultralytics":
        return WeightsError(
            refused + "This looks like MobileSAMv2's object detector (ObjectAwareModel.pt), which is not "
            "needed: use the model 'mobilesamv2', or everything mode of any other model."
        )
    if module in {"tinysam", "quantization", "quant", "quant_layers", "modeling"}:
        return WeightsError(
            refused + "This looks like TinySAM's quantised module (tinysam_w8a8.pth): use the model "
            "'tinysam' or 'tinysam_42.3' (the float weights) instead."
        )
    return WeightsError(
        refused + f"{_USE_INSTEAD}; or, where the file was made and is trusted, save "
        "`torch.save(model.state_dict(), 'weights.pt')` and give that file. In place of tinysam_w8a8.pth use "
        "the model 'tinysam'; in place of ObjectAwareModel.pt use 'mobilesamv2'."
    )


def _unwrap(content: object, path: Path) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """Find the weights in what the file held: tensors by canonical name, layout, and what was left aside."""
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds {_describe(content)}, not weights. Accepted is a state_dict (names to tensors)."
        )
    if "PromtEncoder" in content and "MaskDecoder" in content:
        found = _with_prefix(content["PromtEncoder"], "prompt_encoder.", path)
        found |= _with_prefix(content["MaskDecoder"], "mask_decoder.", path)
        rest = tuple(str(key) for key in content if key not in ("PromtEncoder", "MaskDecoder"))
        return found, "MobileSAMv2 decoder", rest
    candidates: list[tuple[Mapping[Any, Any], str, tuple[str, ...]]] = []
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping):
            beside = tuple(str(key) for key in content if key != wrapper)
            candidates.append((inner, wrapper, beside))
    candidates.append((content, "flat", ()))
    for mapping, layout, beside in candidates:
        found, other = _canonical_names(mapping, path)
        if any(name.startswith(_PARTS) for name in found):
            return found, layout, (*beside, *other)
    raise WeightsError(
        f"{path} holds {_describe(content)}, but no tensor of a Segment Anything model (names starting with "
        f"{', '.join(_PARTS)})."
    )


def _with_prefix(part: object, prefix: str, path: Path) -> dict[str, Tensor]:
    """Name the tensors of one half of MobileSAMv2's decoder file."""
    if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
        raise WeightsError(f"{path} should hold tensors for {prefix[:-1]}, but holds {_describe(part)}.")
    return {prefix + str(name).removeprefix("module.").removeprefix(prefix): part[name] for name in part}


def _canonical_names(mapping: Mapping[Any, Any], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Strip wrapper prefixes; return the tensors and the names of everything else."""
    found: dict[str, Tensor] = {}
    other: list[str] = []
    for key, value in mapping.items():
        if not isinstance(value, Tensor):
            other.append(str(key))
            continue
        match = _CANONICAL.match(str(key))
        name = match.group(1) if match else str(key)
        if name.rpartition(".")[2] in _NORMALISATION:
            continue
        if name in found:
            raise WeightsError(f"{path} holds two tensors named {name} (one as {key}); which one is meant?")
        found[name] = value
    return found, tuple(other)


def _as_float32(name: str, tensor: Tensor, path: Path) -> Tensor:
    """Bring half precision to float32; refuse quantised and complex values."""
    if tensor.is_quantized or tensor.is_complex() or tensor.layout != torch.strided:
        raise WeightsError(
            f"{path} holds {name} as {tensor.dtype}; only plain floating point weights are accepted. "
            "Use the float32 or fp16 file of this model."
        )
    if tensor.is_floating_point():
        return tensor.to(torch.float32)
    if name.endswith("num_batches_tracked"):
        return tensor
    raise WeightsError(
        f"{path} holds {name} as {tensor.dtype}: the weights are quantised. Use the float32 or fp16 file."
    )


def _describe(content: object) -> str:
    """Name what a file holds, briefly."""
    if isinstance(content, Mapping):
        keys = [str(key) for key in content]
        if not keys:
            return "an empty dictionary"
        shown = ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")
        return f"{len(keys)} entries ({shown})"
    if isinstance(content, Tensor):
        return f"a single tensor of shape {tuple(content.shape)}"
    return f"a {type(content).__name__}"
