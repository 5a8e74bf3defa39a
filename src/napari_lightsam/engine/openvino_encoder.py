"""The TinyViT encoder as an OpenVINO graph, made from the torch module's weights in a fraction of a second.

Tracing or exporting the torch module gives the same graph but takes ten seconds or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.openvino_layers import Layers, values, with_norm

if TYPE_CHECKING:
    from torch import nn

    from napari_lightsam.engine.openvino_layers import Node

__all__ = ["FRAME_UNIT", "encoder_graph"]

FRAME_UNIT = 32
"""Frames have sides that are multiples of this."""


@dataclass(frozen=True, slots=True)
class _Windows:
    """Shapes that cut tokens (1, H, W, C) into windows, for one stage; each a list of numbers in the graph.

    Attributes
    ----------
    side
        Of a window, in tokens.
    size
        (H, W).
    missing
        Zero rows and columns below and right that make whole windows, as the end of a padding.
    cut, cut_back
        Shapes with windows as axes of their own, before and after these axes are brought together.
    whole
        Shape of the padded tokens.
    """

    side: int
    size: Node
    missing: Node
    cut: Node
    cut_back: Node
    whole: Node


def encoder_graph(openvino: Any, encoder: nn.Module, out: str = "f32") -> Any:
    """Build the graph of a TinyViT encoder.

    Parameters
    ----------
    openvino
        The module, from `load_openvino`.
    encoder
        A `TinyVitEncoder` in evaluation mode, batch norm folded.
    out
        Type of the tokens: `f32` or `bf16`.

    Returns
    -------
    openvino.Model
        (1, 3, H, W) -> tokens (1, H/16, W/16, 256), channels last; sides multiples of `FRAME_UNIT`.
    """
    layers = Layers(openvino)
    backbone: Any = encoder.backbone
    neck: Any = encoder.neck
    frame = layers.parameter("frame", (1, 3, -1, -1))
    x = layers.conv(frame, backbone.patch_embed.conv1, gelu=True)
    x = layers.conv(x, backbone.patch_embed.conv2)
    for block in backbone.stages[0].blocks:
        inner = layers.conv(layers.conv(x, block.conv1, gelu=True), block.conv2, gelu=True)
        x = layers.gelu(layers.op.add(layers.conv(inner, block.conv3), x))
    for stage in backbone.stages[1:]:
        down = stage.downsample
        x = layers.conv(layers.conv(x, down.conv1, gelu=True), down.conv2, gelu=True)
        x = layers.tokens_last(layers.conv(x, down.conv3))
        windows = _windows(layers, x, stage.blocks[0])
        for block in stage.blocks:
            x = _block(layers, x, block, windows)
        x = layers.channels_first(x)
    x = layers.norm(layers.tokens_last(layers.conv(x, neck[0])), neck[1])
    x = layers.norm(layers.tokens_last(layers.conv(layers.channels_first(x), neck[2])), neck[3])
    if out != "f32":
        x = layers.op.convert(x, out)
    return layers.model("encoder", [x], [frame])


def _windows(layers: Layers, x: Node, block: Any) -> _Windows:
    op, side, channels = layers.op, block.window_size, block.dim
    height, width = layers.sides(x, 1, 2)
    length = layers.ints(side)
    rows, columns = (
        op.divide(op.add(n, layers.ints(side - 1)), length) for n in (height, width)
    )  # rounded up, for the last windows are filled up with zeros
    tall, wide = op.multiply(rows, length), op.multiply(columns, length)
    return _Windows(
        side=side,
        size=layers.join(height, width),
        missing=layers.join(0, op.subtract(tall, height), op.subtract(wide, width), 0),
        cut=layers.join(1, rows, side, columns, side, channels),
        cut_back=layers.join(1, rows, columns, side, side, channels),
        whole=layers.join(1, tall, wide, channels),
    )


def _block(layers: Layers, x: Node, block: Any, windows: _Windows) -> Node:
    """Attention in windows, a depth-wise convolution and an MLP; as timm's `TinyVitBlock`."""
    op = layers.op
    # Zeros that fill up a window take part in its attention, as they did in training: normalised they stay
    # zeros, so the norm can come first.
    y = layers.standardise(x, block.attn.norm.eps)
    y = op.pad(y, layers.ints(0, 0, 0, 0), windows.missing, "constant", op.constant(np.float32(0)))
    y = layers.transpose(op.reshape(y, windows.cut, False), 0, 1, 3, 2, 4, 5)
    y = _attention(layers, layers.reshape(y, -1, windows.side**2, block.dim), block.attn)
    y = layers.transpose(op.reshape(y, windows.cut_back, False), 0, 1, 3, 2, 4, 5)
    y = op.reshape(y, windows.whole, False)
    y = op.slice(y, layers.ints(0, 0), windows.size, layers.ints(1, 1), layers.ints(1, 2))
    x = op.add(x, y)
    x = layers.tokens_last(layers.conv(layers.channels_first(x), block.local_conv))
    y = layers.standardise(x, block.mlp.norm.eps)
    y = layers.gelu(layers.affine(y, *with_norm(block.mlp.fc1, block.mlp.norm)))
    return op.add(x, layers.linear(y, block.mlp.fc2))


def _attention(layers: Layers, x: Node, attention: Any) -> Node:
    """Attend within windows (n, side * side, C) of standardised tokens."""
    op, heads, inner = layers.op, attention.num_heads, attention.key_dim
    weight, bias = with_norm(attention.qkv, attention.norm)
    weight = weight.reshape(heads, 3, inner, -1)
    bias = bias.reshape(heads, 3, inner)
    q, k, v = (
        layers.reshape(
            layers.affine(x, scale * weight[:, i].reshape(heads * inner, -1), scale * bias[:, i].ravel()),
            0,
            0,
            heads,
            inner,
        )
        for i, scale in enumerate((attention.scale, 1.0, 1.0))
    )
    offsets = values(attention.attention_biases)[:, attention.attention_bias_idxs.numpy()]
    scores = op.matmul(layers.transpose(q, 0, 2, 1, 3), layers.transpose(k, 0, 2, 3, 1), False, False)
    weights = op.softmax(op.add(scores, layers.const(offsets[None])), -1)
    mixed = op.matmul(weights, layers.transpose(v, 0, 2, 1, 3), False, False)
    mixed = layers.reshape(layers.transpose(mixed, 0, 2, 1, 3), 0, 0, heads * inner)
    return layers.linear(mixed, attention.proj)
