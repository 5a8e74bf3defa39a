"""What is to be cited: this software and the papers of the models that were used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BIBTEX = {
    "napari-lightsam": """@software{napari_lightsam,
  title   = {napari-lightsam: lightweight Segment Anything for microscopy in napari},
  author  = {{The napari-lightsam developers}},
  version = {VERSION}
}""",
    "Kirillov": """@inproceedings{kirillov2023segment,
  title     = {Segment Anything},
  author    = {Kirillov, Alexander and Mintun, Eric and Ravi, Nikhila and Mao, Hanzi and Rolland, Chloe and
               Gustafson, Laura and Xiao, Tete and Whitehead, Spencer and Berg, Alexander C. and
               Lo, Wan-Yen and Doll{\\'a}r, Piotr and Girshick, Ross},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2023},
  note      = {arXiv:2304.02643}
}""",
    "MobileSAM)": """@misc{zhang2023faster,
  title         = {Faster Segment Anything: Towards Lightweight SAM for Mobile Applications},
  author        = {Zhang, Chaoning and Han, Dongshen and Qiao, Yu and Kim, Jung Uk and Bae, Sung-Ho and
                   Lee, Seungkyu and Hong, Choong Seon},
  year          = {2023},
  eprint        = {2306.14289},
  archivePrefix = {arXiv}
}""",
    "MobileSAMv2": """@misc{zhang2023mobilesamv2,
  title         = {MobileSAMv2: Faster Segment Anything to Everything},
  author        = {Zhang, Chaoning and others},
  year          = {2023},
  eprint        = {2312.09579},
  archivePrefix = {arXiv}
}""",
    "TinySAM": """@misc{shu2023tinysam,
  title         = {TinySAM: Pushing the Envelope for Efficient Segment Anything Model},
  author        = {Shu, Han and Li, Wenshuo and Tang, Yehui and Zhang, Yiman and Chen, Yihao and
                   Li, Houqiang and Wang, Yunhe and Chen, Xinghao},
  year          = {2023},
  eprint        = {2312.13789},
  archivePrefix = {arXiv}
}""",
    "Archit": """@article{archit2025segment,
  title   = {Segment Anything for Microscopy},
  author  = {Archit, Anwai and others},
  journal = {Nature Methods},
  year    = {2025}
}""",
}
"""By a word of `ModelSpec.citation`."""

_FIELD = re.compile(r"^  (\w+) *= \{(.*?)\}$", re.MULTILINE | re.DOTALL)


def cite(version: str, citations: Iterable[str]) -> list[str]:
    """Give the BibTeX entries of this software and of models.

    Parameters
    ----------
    version
        Of this software.
    citations
        `ModelSpec.citation` of every model.
    """
    found = {"napari-lightsam": BIBTEX["napari-lightsam"].replace("VERSION", version or "unknown")}
    found["Kirillov"] = BIBTEX["Kirillov"]  # every model here is of this kind
    for citation in citations:
        found |= {word: entry for word, entry in BIBTEX.items() if word in citation and word not in found}
    return list(found.values())


def spell_out(entry: str) -> str:
    """Write a BibTeX entry out for people.

    Examples
    --------
    >>> spell_out(BIBTEX["Archit"])
    'Archit, Anwai and others. Segment Anything for Microscopy. Nature Methods, 2025.'
    """
    text = entry.replace("{\\'a}", "á").replace(",\n", "\n")
    found = {name: " ".join(value.strip("{}").split()) for name, value in _FIELD.findall(text)}
    if "version" in found:
        found["version"] = f"Version {found['version']}"
    if "eprint" in found:
        found["eprint"] = f"arXiv:{found['eprint']}"
    where = [found[name] for name in ("booktitle", "journal", "eprint", "version", "year") if name in found]
    note = [found["note"]] if "note" in found else []
    return f"{found['author']}. {found['title']}. {', '.join([*where, *note])}."
