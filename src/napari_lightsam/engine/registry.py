"""The models this package knows by name: where their files are, how to verify and how to use them.

Free of torch, so that a chooser or `lightsam models list` opens at once.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_lightsam.engine.local import local_models
from napari_lightsam.errors import WeightsError
from napari_lightsam.model.spec import EverythingDefaults, ModelSpec, ObjectFrame

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ALIASES", "MODELS", "ModelEntry", "RemoteFile", "described_spec", "find_model", "known_models"]

_SIDES = {str(side) for side in range(4, 64)}  # of decoding windows, in tokens, as a header writes them
_DESCRIPTIVE = ("name", "title", "trained_on", "not_trained_on", "licence", "citation", "source")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One checkpoint file as its authors publish it.

    Attributes
    ----------
    name
        File name in the cache folder, in shared folders and on a mirror; unique in the registry.
    url
        Where its authors keep it.
    size
        Exact number of bytes, where it is known.
    hash
        `sha256:...`, `xxh128:...` or `gitblob:...` (git's object id); None where none is published.
    about
        Approximate number of bytes, to tell a user before a download.
    """

    name: str
    url: str
    size: int | None
    hash: str | None
    about: int = 0

    @property
    def expected_bytes(self) -> int:
        """Exact size where known, else the approximate one; 0 when neither is known."""
        return self.size or self.about


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model in the registry.

    Attributes
    ----------
    spec
        How the model is built, fed and read.
    files
        Files to download, in loading order; empty for a model inside the package.
    embedded
        The weights are part of the package and need neither network nor cache.
    parts
        For each file the tensor name prefixes that are taken from it; empty takes everything.
    local
        The weights of a model of the user's own; None for published ones.
    """

    spec: ModelSpec
    files: tuple[RemoteFile, ...] = ()
    embedded: bool = False
    parts: tuple[tuple[str, ...], ...] = ()
    local: Path | None = None

    @property
    def download_size(self) -> int:
        """Bytes to download, approximate where the exact size is not published; 0 when unknown."""
        return sum(file.expected_bytes for file in self.files)


_SAM_DATA = "SA-1B: 11 million natural photographs with 1.1 billion masks"
_NO_MICROSCOPY = "microscopy of any kind; expect dim, dense or low-contrast objects to be missed"
_SAM_CITATION = "Kirillov et al., Segment Anything, ICCV 2023, arXiv 2304.02643"
_MOBILE_SAM_CITATION = "Zhang et al., Faster Segment Anything (MobileSAM), arXiv 2306.14289"
_TINY_SAM_CITATION = "Shu et al., TinySAM, AAAI 2025, arXiv 2312.13789"
_MICRO_SAM_CITATION = "Archit et al., Segment Anything for Microscopy, Nature Methods 2025"

_MOBILE_SAM_REPOSITORY = "https://github.com/ChaoningZhang/MobileSAM"
_TINY_SAM_REPOSITORY = "https://github.com/xinghaochen/TinySAM"
_MICRO_SAM_STORE = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io"
_SAM_STORE = "https://dl.fbaipublicfiles.com/segment_anything"

_MOBILE_SAM_FILE = RemoteFile(
    name="mobile_sam.pt",
    url=f"{_MOBILE_SAM_REPOSITORY}/raw/34bbbfdface3c18e5221aa7de6032d7220c6c6a1/weights/mobile_sam.pt",
    size=40_728_226,
    hash="sha256:6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    about=40_728_226,
)

# The authors publish this file on their main branch only; the git object id holds it to one content.
_MOBILE_SAM_V2_DECODER = RemoteFile(
    name="Prompt_guided_Mask_Decoder.pt",
    url=f"{_MOBILE_SAM_REPOSITORY}/raw/master/MobileSAMv2/PromptGuidedDecoder/Prompt_guided_Mask_Decoder.pt",
    size=None,
    hash="gitblob:c13b15a3a4496dbcba5f4f0d3e8453f41d818420",
    about=16_000_000,
)


def _lightsam() -> ModelEntry:
    """Our own model, inside the package."""
    spec = ModelSpec(
        name="lightsam",
        title="LightSAM",
        frame=ObjectFrame(),
        window=16,
        small_windows=(8, 12),
        everything=EverythingDefaults(
            points_per_side=None,
            point_spacing=16.0,
            iou_threshold=0.5,
            stability_threshold=0.1,
            stability_offset=1.0,
            proposal_threshold=0.35,
        ),
        trained_on=(
            "microscopy: nuclei (fluorescence, H&E, bright field, DAPI in tissue), cells in phase contrast, "
            "myelinated axons (SEM), neurites (FIB-SEM)"
        ),
        not_trained_on=(
            "bacteria, mitochondria and other organelles, yeast, plant tissue, blood smears, whole embryos, "
            "photographs"
        ),
        licence="BSD-3-Clause; training data CC0, MIT, Apache-2.0 and CC BY (see the model card)",
        citation="napari-lightsam (see CITATION.cff)",
        source="part of the package: weights/lightsam.safetensors",
    )
    return ModelEntry(spec, embedded=True)


def _tiny_sam(name: str, title: str, file: RemoteFile) -> ModelEntry:
    """Build the entry of a TinySAM checkpoint; its decoder always answers with the best of three masks."""
    spec = ModelSpec(
        name=name,
        title=title,
        always_multimask=True,
        trained_on=_SAM_DATA + " (1% of it, distilled from SAM ViT-H)",
        not_trained_on=_NO_MICROSCOPY,
        licence="Apache-2.0",
        citation=_TINY_SAM_CITATION,
        source=_TINY_SAM_REPOSITORY,
    )
    return ModelEntry(spec, (file,))


def _micro_sam(name: str, title: str, trained_on: str, not_trained_on: str, file: RemoteFile) -> ModelEntry:
    """Build the entry of a micro-sam generalist with MobileSAM's encoder."""
    spec = ModelSpec(
        name=name,
        title=title,
        trained_on=trained_on,
        not_trained_on=not_trained_on,
        licence="CC-BY-4.0",
        citation=_MICRO_SAM_CITATION,
        source=file.url.rsplit("/files/", 1)[0],
    )
    return ModelEntry(spec, (file,))


def _sam(letter: str, code: str, sha256: str, about: int) -> ModelEntry:
    """Build the entry of one of SAM's three original checkpoints."""
    name = f"sam_vit_{letter}"
    architectures = {"b": "vit_b", "l": "vit_l", "h": "vit_h"}
    spec = ModelSpec(
        name=name,
        title=f"SAM ViT-{letter.upper()}",
        architecture=architectures[letter],  # type: ignore[arg-type]
        trained_on=_SAM_DATA,
        not_trained_on=_NO_MICROSCOPY,
        licence="Apache-2.0",
        citation=_SAM_CITATION,
        source="https://github.com/facebookresearch/segment-anything",
    )
    file_name = f"{name}_{code}.pth"
    return ModelEntry(
        spec, (RemoteFile(file_name, f"{_SAM_STORE}/{file_name}", None, f"sha256:{sha256}", about),)
    )


def _mobile_sam() -> ModelEntry:
    """MobileSAM as published."""
    spec = ModelSpec(
        name="mobile_sam",
        title="MobileSAM",
        trained_on=_SAM_DATA + " (1% of it, distilled from SAM ViT-H)",
        not_trained_on=_NO_MICROSCOPY,
        licence="Apache-2.0",
        citation=_MOBILE_SAM_CITATION,
        source=_MOBILE_SAM_REPOSITORY,
    )
    return ModelEntry(spec, (_MOBILE_SAM_FILE,))


def _mobile_sam_v2() -> ModelEntry:
    """MobileSAM's encoder with the prompt-guided decoder of MobileSAMv2."""
    spec = ModelSpec(
        name="mobilesamv2",
        title="MobileSAMv2 (prompt-guided decoder)",
        trained_on=_SAM_DATA + " (encoder as MobileSAM; decoder tuned for box prompts)",
        not_trained_on=_NO_MICROSCOPY,
        licence="Apache-2.0",
        citation="Zhang et al., MobileSAMv2: Faster Segment Anything to Everything, arXiv 2312.09579",
        source=_MOBILE_SAM_REPOSITORY,
    )
    return ModelEntry(
        spec,
        (_MOBILE_SAM_FILE, _MOBILE_SAM_V2_DECODER),
        parts=(("image_encoder.",), ("prompt_encoder.", "mask_decoder.")),
    )


_ENTRIES = (
    _lightsam(),
    _micro_sam(
        "vit_t_lm",
        "micro-sam light microscopy",
        "light microscopy: cells and nuclei in fluorescence, phase contrast, bright field and tissue",
        "electron microscopy, histology stains, organelles",
        RemoteFile(
            name="vit_t_lm.pt",
            url=f"{_MICRO_SAM_STORE}/faithful-chicken/1.1/files/vit_t.pt",
            size=None,
            hash="xxh128:72ec5074774761a6e5c05a08942f981e",
            about=41_000_000,
        ),
    ),
    _micro_sam(
        "vit_t_em_organelles",
        "micro-sam organelles in electron microscopy",
        "electron microscopy: mitochondria, nuclei and other large, roundish organelles",
        "light microscopy; thin or branching membranes and neurites",
        RemoteFile(
            name="vit_t_em_organelles.pt",
            url=f"{_MICRO_SAM_STORE}/greedy-whale/1/files/vit_t.pt",
            size=None,
            hash="xxh128:253474720c497cce605e57c9b1d18fd9",
            about=41_000_000,
        ),
    ),
    _mobile_sam(),
    _tiny_sam(
        "tinysam",
        "TinySAM (41.9 AP)",
        RemoteFile(
            name="tinysam.pth",
            url=f"{_TINY_SAM_REPOSITORY}/releases/download/1.0/tinysam.pth",
            size=None,
            hash="sha256:4b8edcf93af46e2a658ae455574de62873778a5cc3fd8e8adf094dcdfa957cf2",
            about=40_700_000,
        ),
    ),
    _tiny_sam(
        "tinysam_42.3",
        "TinySAM (42.3 AP)",
        RemoteFile(
            name="tinysam_42.3.pth",
            url=f"{_TINY_SAM_REPOSITORY}/releases/download/3.0/tinysam_42.3.pth",
            size=None,
            hash=None,
            about=40_700_000,
        ),
    ),
    _mobile_sam_v2(),
    _sam("b", "01ec64", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375_000_000),
    _sam("l", "0b3195", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1_250_000_000),
    _sam("h", "4b8939", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 2_560_000_000),
)

MODELS: dict[str, ModelEntry] = {entry.spec.name: entry for entry in _ENTRIES}
"""Every published model by name, in the order a chooser shows them."""

ALIASES: dict[str, str] = {"mobilesamv2-decoder": "mobilesamv2"}
"""Other accepted names. The decoder file of MobileSAMv2 is no model alone, so its name means the model."""


def known_models() -> dict[str, ModelEntry]:
    """Return the published models and the user's own by name, in the order a chooser shows them.

    A file of the user's folder that is called like a published model, or is to be used like one that this
    version does not know, is left out.

    Examples
    --------
    >>> next(iter(known_models()))
    'lightsam'
    """
    known = dict(MODELS)
    for model in local_models():
        base = model.metadata.get("spec", "")
        if base in MODELS and model.name not in MODELS and model.name not in ALIASES:
            described = {**model.metadata, "name": model.name, "source": str(model.path)}
            known[model.name] = ModelEntry(described_spec(base, described), local=model.path)
    return known


def described_spec(base: str, metadata: Mapping[str, str]) -> ModelSpec:
    """Return the spec of a model that is used like another one, with the words of its own file.

    Parameters
    ----------
    base
        A key of `MODELS`.
    metadata
        Header entries; `name`, `title`, `trained_on`, `not_trained_on`, `licence`, `citation` and `source`
        replace those of the base. `small_windows`, sides in tokens with commas between, says that the
        weights were trained in such windows; without it they were not.
    """
    described = {key: metadata[key] for key in _DESCRIPTIVE if key in metadata}
    sides = [side.strip() for side in metadata.get("small_windows", "").split(",")]
    windows = tuple(sorted(int(side) for side in sides if side in _SIDES))
    return replace(MODELS[base].spec, small_windows=windows, **described)  # type: ignore[arg-type]


def find_model(name: str) -> ModelEntry:
    """Look a model up by its name or an alias.

    Parameters
    ----------
    name
        A key of `known_models()` or `ALIASES`.

    Raises
    ------
    WeightsError
        The name is not known; the message lists the known ones and the closest.

    Examples
    --------
    >>> find_model("lightsam").embedded
    True
    >>> find_model("mobilesamv2-decoder").spec.name
    'mobilesamv2'
    """
    name = ALIASES.get(name, name)
    known = MODELS if name in MODELS else known_models()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, [*known, *ALIASES], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise WeightsError(
        f"There is no model named {name!r}.{hint} Known models: {', '.join(known)}. "
        "A checkpoint of your own is given by the path of its file."
    )
