"""Predicted against true IoU, with numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.errors import ConfigError
from napari_lightsam.train.calibration import calibrate

parts = st.floats(0, 1)


def test_the_worked_example_gives_the_figures_found_by_hand():
    found = calibrate([0.95, 0.85, 0.85, 0.2], [0.9, 0.65, 0.95, 0.0])
    assert found is not None
    assert found.count == 4
    assert found.mean_absolute_error == pytest.approx((0.05 + 0.2 + 0.1 + 0.2) / 4)
    assert found.bias == pytest.approx((0.05 + 0.2 - 0.1 + 0.2) / 4)
    filled = {row.low: (row.count, row.predicted, row.reached) for row in found.bins if row.count}
    assert filled == {
        0.2: (1, pytest.approx(0.2), 0),
        0.8: (2, pytest.approx(0.85), pytest.approx(0.8)),
        0.9: (1, pytest.approx(0.95), pytest.approx(0.9)),
    }


def test_no_mask_gives_nothing():
    assert calibrate([], []) is None


def test_predictions_outside_the_range_count_as_its_ends():
    found = calibrate([1.2, -0.3], [1.0, 0.0])
    assert found is not None
    assert found.mean_absolute_error == 0
    assert (found.bins[0].count, found.bins[-1].count) == (1, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(parts, parts), min_size=1), st.integers(1, 20))
def test_every_mask_is_in_one_row_and_the_rows_add_up(pairs, bins):
    predicted, reached = np.array(pairs).T
    found = calibrate(predicted, reached, bins)
    assert found is not None
    assert sum(row.count for row in found.bins) == found.count == len(pairs)
    assert sum(row.count * (row.reached or 0) for row in found.bins) == pytest.approx(reached.sum())
    assert abs(found.bias) <= found.mean_absolute_error + 1e-9


@pytest.mark.parametrize(("reached", "bins"), [([0.1], 10), ([0.1, 0.2], 0)], ids=["lengths", "no bins"])
def test_what_cannot_be_compared_is_refused(reached, bins):
    with pytest.raises(ConfigError, match="one of each per mask"):
        calibrate([0.5, 0.5], reached, bins)
