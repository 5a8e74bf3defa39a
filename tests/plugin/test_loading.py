from __future__ import annotations

import numpy as np

from napari_lightsam.plugin import loading


def test_an_image_that_was_open_before_is_not_encoded_again(sample, monkeypatch):
    image = sample("nuclei_fluorescence")[0][:120, :120]
    first = loading.load("lightsam")
    masks = first.predict(first.embed(image, object_size=26), points=[(60, 60)])

    again = loading.load("lightsam")
    monkeypatch.setattr(again.runtime.runtime, "encode", None)  # would fail if it were asked
    same = again.predict(again.embed(image, object_size=26), points=[(60, 60)])
    assert masks.to_array().any()
    assert np.array_equal(same.to_array(), masks.to_array())
