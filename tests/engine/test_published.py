import numpy as np
import pytest

from napari_lightsam.engine.published import finer_points, square_lattice


def test_the_lattice_of_sam_is_square_whatever_the_image():
    points = square_lattice((100, 400), 4)
    assert points.shape == (16, 2)
    assert points[0].tolist() == [12.5, 50]
    assert points[-1].tolist() == [87.5, 350]


def test_the_second_lattice_of_tinysam_lies_around_the_first_without_it():
    coarse = square_lattice((256, 256), 4)
    fine = finer_points(coarse, (256, 256), 16, np.zeros((256, 256), bool))
    both = {tuple(point) for point in coarse} & {tuple(point) for point in fine}
    assert not both
    assert (
        len({tuple(point) for point in fine}) == len(fine) == 15 * 15 - 16
    )  # the 16th row and column lie outside
    assert np.abs(fine[:, None] - coarse).max(axis=2).min(axis=1).max() <= 32


@pytest.mark.parametrize("part", [np.s_[:128], np.s_[:, 128:]], ids=["upper half", "right half"])
def test_settled_pixels_are_not_prompted_again(part):
    settled = np.zeros((256, 256), bool)
    settled[part] = True
    points = finer_points(square_lattice((256, 256), 4), (256, 256), 16, settled).astype(int)
    assert 0 < len(points) < 240
    assert not settled[points[:, 0], points[:, 1]].any()
