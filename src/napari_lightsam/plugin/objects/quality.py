"""How good a result is, by looking at a few objects drawn at random: precision and recall. Knows no Qt.

Every object of a random sample is judged, which gives the precision; in fields placed at random, what was
missed is counted, which gives the recall. Both come with the interval that so few objects allow.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.viewer.layers import note_of, ours

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari.layers import Labels

    from napari_lightsam.plugin.objects.table import ObjectTable

SAMPLE = 30
"""Objects that are judged."""

_VERSION = 1
_Z = 1.959963984540054  # of a two-sided interval of 95% under the normal distribution
_EXPECTED = 20  # objects that a random field should hold, about


class Verdict(StrEnum):
    """What the user says of an object."""

    CORRECT = "correct"
    WRONG = "wrong"
    """No object, or an outline that is clearly off."""
    MERGED = "merged"
    """Several objects in one."""
    SPLIT = "split"
    """Part of an object whose other parts have labels of their own."""


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, estimated from a sample.

    Attributes
    ----------
    hits, total
        Of `total` objects looked at, so many were right.

    Examples
    --------
    >>> Share(27, 30).text
    '0.90 (0.74 to 0.97, 27 of 30)'
    """

    hits: int
    total: int

    @property
    def value(self) -> float:
        """The estimate; NaN when nothing was looked at."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval by Wilson."""
        return wilson(self.hits, self.total)

    @property
    def text(self) -> str:
        """The estimate with its interval, in words."""
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f} to {high:.2f}, {self.hits} of {self.total})"


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a proportion.

    Unlike the usual interval it holds for a few objects and for proportions near 0 or 1 too (E. B. Wilson,
    Journal of the American Statistical Association 22, 209-212, 1927).

    Parameters
    ----------
    hits, total
        So many of `total`.

    Returns
    -------
    tuple of float
        Lower and upper bound; (0, 1) when nothing was looked at.

    Raises
    ------
    ValueError
        `hits` does not lie between 0 and `total`.

    Examples
    --------
    >>> [round(bound, 4) for bound in wilson(81, 263)]
    [0.2553, 0.3662]
    """
    if not 0 <= hits <= total:
        raise ValueError(f"hits must lie between 0 and {total}, got {hits}.")
    if total == 0:
        return 0.0, 1.0
    share, z2 = hits / total, _Z * _Z
    middle = share + z2 / (2 * total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    low, high = ((middle + sign * half) / (1 + z2 / total) for sign in (-1, 1))
    return (0.0 if hits == 0 else low), (1.0 if hits == total else high)


@dataclass(frozen=True, slots=True)
class Field:
    """A part of the plane in which missed objects were counted.

    Attributes
    ----------
    box
        (y0, x0, y1, x1), half-open, in pixels of the Labels layer's plane.
    place
        Which plane: position along every axis of the Labels array, None on its two.
    outlined
        Objects of the result whose centre lies in the field.
    false
        Of these, those that are no real object.
    missed
        Real objects in it without an outline.
    """

    box: tuple[int, int, int, int]
    place: tuple[int | None, ...]
    outlined: int
    false: int = 0
    missed: int = 0

    @property
    def found(self) -> int:
        """Real objects that the result has."""
        return max(0, self.outlined - self.false)


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a result, finished or not.

    Attributes
    ----------
    seed
        Decides which objects and fields are drawn.
    sampled
        Labels to judge, in the order they are shown.
    verdicts
        What was said of each, by label.
    population
        Objects that the sample was drawn from.
    fingerprint
        `ObjectTable.fingerprint` of the result that is checked.
    fields
        Where missed objects were counted.
    place
        What of the Labels array the objects were drawn from.
    """

    seed: int
    sampled: tuple[int, ...]
    verdicts: tuple[tuple[int, Verdict], ...] = ()
    population: int = 0
    fingerprint: int = 0
    fields: tuple[Field, ...] = ()
    place: tuple[int | None, ...] = ()

    @property
    def next(self) -> int | None:
        """The first object that was not judged; None when all were."""
        judged = dict(self.verdicts)
        return next((label for label in self.sampled if label not in judged), None)

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """How often each verdict was given."""
        return Counter(verdict for _, verdict in self.verdicts)

    @property
    def precision(self) -> Share:
        """Part of the judged objects that is correct."""
        return Share(self.counts[Verdict.CORRECT], len(self.verdicts))

    @property
    def recall(self) -> Share:
        """Part of the real objects in the fields that was found."""
        found = sum(field.found for field in self.fields)
        return Share(found, found + sum(field.missed for field in self.fields))

    def judge(self, label: int, verdict: Verdict) -> Check:
        """Return the check with a verdict on one of its objects, in place of an earlier one."""
        if label not in self.sampled:
            raise ValueError(f"Object {label} is not in the sample.")
        others = tuple(pair for pair in self.verdicts if pair[0] != label)
        return replace(self, verdicts=(*others, (label, verdict)))

    def with_field(self, field: Field) -> Check:
        """Return the check with another field, or with other counts of one that it has."""
        others = tuple(f for f in self.fields if (f.box, f.place) != (field.box, field.place))
        return replace(self, fields=(*others, field))

    def to_plain(self) -> dict[str, Any]:
        """Return the same and its results as a dictionary that JSON can hold."""
        plain: dict[str, Any] = {
            "version": _VERSION,
            "seed": self.seed,
            "population": self.population,
            "fingerprint": self.fingerprint,
            "place": list(self.place),
            "sampled": list(self.sampled),
            "verdicts": {str(label): str(verdict) for label, verdict in self.verdicts},
            "fields": [
                {
                    "box": list(field.box),
                    "place": list(field.place),
                    "outlined": field.outlined,
                    "false": field.false,
                    "missed": field.missed,
                }
                for field in self.fields
            ],
        }
        for name, share in (("precision", self.precision), ("recall", self.recall)):
            low, high = share.interval
            plain[name] = {
                "value": share.value if share.total else None,
                "low": low,
                "high": high,
                "hits": share.hits,
                "total": share.total,
            }
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Check:
        """Read what `to_plain` wrote.

        Raises
        ------
        FileError
            It is of a newer version, or damaged.
        """
        if plain.get("version") != _VERSION:
            raise FileError(
                f"The quality check has version {plain.get('version')!r}; this program reads version "
                f"{_VERSION}. Update it, or start a new check."
            )
        try:
            return cls(
                int(plain["seed"]),
                tuple(int(label) for label in plain["sampled"]),
                tuple((int(label), Verdict(verdict)) for label, verdict in plain["verdicts"].items()),
                int(plain["population"]),
                int(plain["fingerprint"]),
                tuple(_field(field) for field in plain["fields"]),
                _place(plain["place"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FileError(f"The quality check is damaged: {error}. Start a new one.") from error


def _field(plain: Mapping[str, Any]) -> Field:
    y0, x0, y1, x1 = (int(v) for v in plain["box"])
    outlined, false, missed = (int(plain[name]) for name in ("outlined", "false", "missed"))
    return Field((y0, x0, y1, x1), _place(plain["place"]), outlined, false, missed)


def _place(plain: Iterable[Any]) -> tuple[int | None, ...]:
    return tuple(None if step is None else int(step) for step in plain)


def draw_sample(table: ObjectTable, seed: int, count: int = SAMPLE) -> Check:
    """Draw objects at random, each with the same chance; the same seed draws the same ones.

    Parameters
    ----------
    table
        All objects.
    seed
        Of the random numbers.
    count
        How many; all when there are fewer.
    """
    drawn = np.random.default_rng(seed).permutation(table.labels)[:count]
    return Check(
        seed,
        tuple(int(label) for label in drawn),
        population=len(table),
        fingerprint=table.fingerprint,
        place=table.place,
    )


def draw_field(table: ObjectTable, shape: tuple[int, int], check: Check) -> Field:
    """Place another field at random; its size is such that it holds some 20 objects.

    Parameters
    ----------
    table
        Objects of the displayed plane.
    shape
        (H, W) of the plane.
    check
        Its seed, and how many fields there are, decide the place.
    """
    rng = np.random.default_rng([check.seed, len(check.fields)])
    part = math.sqrt(min(1.0, _EXPECTED / max(1, len(table))))
    height, width = (max(1, math.ceil(part * length)) for length in shape)
    y0, x0 = (int(rng.integers(0, n - m + 1)) for n, m in zip(shape, (height, width), strict=True))
    box = (y0, x0, y0 + height, x0 + width)
    return Field(box, table.place, count_outlined(table, box))


def count_outlined(table: ObjectTable, box: tuple[int, int, int, int]) -> int:
    """Count the objects of a plane whose centroid lies in a box (y0, x0, y1, x1)."""
    free = [axis for axis, step in enumerate(table.place) if step is None]
    at = table.centroids[:, free]
    return int(((at >= box[:2]) & (at < box[2:])).all(axis=1).sum())


def read_check(labels: Labels) -> Check | None:
    """Return the check that is kept with a layer; None where there is none.

    Raises
    ------
    FileError
        As `Check.from_plain`.
    """
    plain = ours(labels).get("quality")
    return None if plain is None else Check.from_plain(plain)


def keep_check(labels: Labels, check: Check | None) -> None:
    """Keep a check with its layer, as `metadata["napari-lightsam"]["quality"]`; None removes it."""
    note = note_of(labels)
    if check is None:
        note.pop("quality", None)
    else:
        note["quality"] = check.to_plain()
