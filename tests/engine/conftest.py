"""A stand-in for the network whose answers are known: a disc at each prompt, sure of what is bright."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_lightsam.engine.segmenter import Segmenter
from napari_lightsam.model.spec import EverythingDefaults, ModelSpec, ObjectFrame

SPEC = ModelSpec(
    "discs",
    "Discs",
    frame=ObjectFrame(target=48.0),
    window=16,
    everything=EverythingDefaults(None, 16.0, iou_threshold=0.5, stability_threshold=0.5),
)


class Discs:
    """Answers a point with a disc around it, a box with an ellipse in it; counts what it is asked.

    Its embedding is the image at a sixteenth; its scores are high for prompts in what is bright.

    Attributes
    ----------
    radius
        Of the discs, in frame pixels.
    encoded, asked
        Frames and prompts so far.
    heat
        What the proposal head says, a function of the tokens; None: there is no head.
    """

    device = SimpleNamespace(name="cpu", precision="float32", reason="", runtime="torch")

    def __init__(self, radius=22.0):
        self.radius, self.encoded, self.asked, self.heat = radius, 0, 0, None
        self.multimask = set()

    def encode(self, frame):
        self.encoded += 1
        height, width = frame.shape[1:]
        return torch.from_numpy(frame.reshape(3, height // 16, 16, width // 16, 16).mean(axis=(2, 4)))[None]

    def propose(self, tokens):
        return None if self.heat is None else self.heat(tokens)

    def decode(self, tokens, prompts, multimask):
        self.asked += len(prompts.points)
        self.multimask.add(multimask)
        side = [4 * n for n in tokens.shape[-2:]]
        y, x = np.indices(side) * 4 + 2.0
        logits, scores = [], []
        for i in range(len(prompts.points)):
            if prompts.boxes is not None:
                x0, y0, x1, y1 = prompts.boxes[i].numpy()
                centre, radii = ((y0 + y1) / 2, (x0 + x1) / 2), ((y1 - y0) / 2, (x1 - x0) / 2)
            else:
                centre = prompts.points[i, 0].numpy()[::-1]
                radii = self.radius, self.radius
            at = [int(np.clip(c // 16, 0, n - 1)) for c, n in zip(centre, tokens.shape[-2:], strict=True)]
            scores.append(0.9 if float(tokens[i % len(tokens), 0, at[0], at[1]]) > 0.3 else 0.1)
            away = np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1])
            logits.append((1 - away) * 10)
        return np.stack(logits)[:, None].astype(np.float32), np.array(scores, np.float32)[:, None]


@pytest.fixture
def discs():
    """A segmenter that draws discs; its runtime counts."""
    return Segmenter(SPEC, Discs(), "hash")
