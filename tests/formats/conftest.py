"""Label images that are hard to outline."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def awkward() -> np.ndarray:
    """Objects with holes, in holes, in pieces, at the border, of one pixel, that touch, with a large id."""
    labels = np.zeros((24, 31), np.int32)
    labels[0:6, 0:7] = 3  # in the corner of the image, with two holes that meet at a corner
    labels[1:3, 1:3] = labels[3:5, 3:5] = 0
    labels[0:6, 7:11] = 4  # touches it along an edge
    labels[6, 11] = 5  # touches that at a corner; one pixel
    labels[8:18, 2:12] = 70_000  # a ring around a ring around an object
    labels[10:16, 4:10] = 0
    labels[11:15, 5:9] = 9
    labels[12:14, 6:8] = 12
    labels[8:12, 15:19] = labels[12:16, 19:23] = 7  # two squares that meet at a corner
    labels[20:23, 15:18] = 7  # and another
    labels[18:24, 25:31] = 11  # a ring that closes only at a corner, in the other corner of the image
    labels[19:22, 26:29] = labels[22, 29] = labels[23, 30] = 0
    return labels


@pytest.fixture(scope="session")
def many() -> np.ndarray:
    """70,225 touching objects, each with a hole."""
    shape = np.ones((6, 6), bool)
    shape[2:4, 2] = shape[0, 0] = False
    return np.kron(np.arange(1, 265 * 265 + 1).reshape(265, 265), shape).astype(np.int32)
