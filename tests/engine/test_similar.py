"""Places that resemble an object, wherever its embedding lies."""

import numpy as np
import pytest
import torch

from napari_lightsam import drain
from napari_lightsam.engine.masks import crop_mask
from napari_lightsam.engine.similar import find_similar
from napari_lightsam.engine.tile import Tile


class OnDevice(torch.Tensor):
    """Values as a GPU holds them: NumPy reads them only once they were fetched."""

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_similar_places_are_found_in_tokens_of_any_device_and_precision(
    segmenter, nuclei, monkeypatch, dtype
):
    image, labels = nuclei
    mask = crop_mask(labels == labels[labels > 0][len(labels) // 2])
    embedding = segmenter.embed(image, object_size=26)
    expected = drain(find_similar(segmenter, embedding, mask))
    assert len(expected) > 3

    tokens = Tile.tokens
    monkeypatch.setattr(Tile, "tokens", lambda tile: tokens(tile).to(dtype).as_subclass(OnDevice))
    found = drain(find_similar(segmenter, embedding, mask))
    assert len(found) == pytest.approx(len(expected), abs=2)
    if dtype is torch.float32:
        assert np.array_equal(found, expected)
