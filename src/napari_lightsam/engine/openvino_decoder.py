"""The mask decoder and the proposal head as OpenVINO graphs, made from the torch module's weights.

Between a handful of prompt tokens and hundreds of image tokens the projections of the image are the cost of
attention, so they are moved to the other side: (W_k x) . q = x . (W_k^T q) for every image token x, and
sum(a W_v x) = W_v sum(a x). It is exact, and less than half the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lightsam.engine.openvino_layers import Layers, values
from napari_lightsam.model.proposals import FARTHEST
from napari_lightsam.model.spec import PROPOSAL_STRIDE

if TYPE_CHECKING:
    from torch import nn

    from napari_lightsam.engine.openvino_layers import Node
    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.model.decoder import Attention, MaskDecoder, TwoWayBlock
    from napari_lightsam.model.proposals import ProposalHead
    from napari_lightsam.model.sam import Sam

__all__ = ["decoder_graph", "proposal_graph"]


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Numbers of a decoder's graph: channels, image tokens, and (open, a list in the graph) prompt tokens."""

    width: int
    area: int
    tokens: Node


def decoder_graph(openvino: Any, model: Sam, height: int, width: int, kind: str = "f32") -> Any:
    """Build the graph of the mask decoder for one size of the area that prompts are decoded in.

    Parameters
    ----------
    openvino
        The module, from `load_openvino`.
    model
        In evaluation mode.
    height, width
        Of the area, in embedding tokens.
    kind
        Type of the image tokens: `f32` or `bf16`.

    Returns
    -------
    openvino.Model
        image (N or 1, L, C), dense (N or 1, L or 1, C), sparse (N, T, C) and the numbers of the wanted masks
        (M,) -> logits (N, M, 4 * height, 4 * width) and predicted IoU (N, M); L = height * width.
    """
    layers, decoder = Layers(openvino), model.mask_decoder
    op, own = layers.op, values(torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]))
    channels = own.shape[1]
    with torch.inference_mode():
        grid = model.prompt_encoder.pe_layer.grid(height, width).flatten(2).transpose(1, 2)
    place = layers.const(values(grid))
    image = layers.parameter("image", (-1, height * width, channels), kind)
    dense = layers.parameter("dense", (-1, -1, channels))
    sparse = layers.parameter("sparse", (-1, -1, channels))
    wanted = layers.parameter("wanted", (-1,), "i64")
    number, given = layers.sides(sparse, 0, 1)
    sizes = _Sizes(channels, height * width, op.add(given, layers.ints(len(own))))
    repeated = op.broadcast(layers.const(own[None]), layers.join(number, len(own), channels))
    prompt = op.concat([repeated, sparse], 1)

    tokens = prompt
    pixels = op.add(op.convert(image, "f32") if kind != "f32" else image, dense)
    for block in decoder.transformer.layers:
        tokens, pixels = _two_way(layers, block, tokens, pixels, prompt, place, sizes)  # type: ignore[arg-type]
    last = decoder.transformer.final_attn_token_to_image
    found = _tokens_to_image(layers, last, op.add(tokens, prompt), op.add(pixels, place), pixels, sizes)
    tokens = layers.norm(op.add(tokens, found), decoder.transformer.norm_final_attn)
    logits = _masks(layers, decoder, tokens, pixels, wanted, (height, width))
    iou = layers.mlp(_token(layers, tokens, 0, channels), decoder.iou_prediction_head.layers)  # type: ignore[arg-type]
    iou = op.gather(layers.reshape(iou, -1, decoder.masks), wanted, op.constant(np.int64(1)))
    return layers.model("decoder", [logits, iou], [image, dense, sparse, wanted])


def _two_way(
    layers: Layers, block: TwoWayBlock, tokens: Node, pixels: Node, prompt: Node, place: Node, sizes: _Sizes
) -> tuple[Node, Node]:
    """As `TwoWayBlock.forward`."""
    add = layers.op.add
    if block.first:
        tokens = _attend(layers, block.self_attn, tokens, tokens)
    else:
        tokens = add(tokens, _attend(layers, block.self_attn, add(tokens, prompt), tokens))
    tokens = layers.norm(tokens, block.norm1)
    keys = add(pixels, place)
    found = _tokens_to_image(
        layers, block.cross_attn_token_to_image, add(tokens, prompt), keys, pixels, sizes
    )
    tokens = layers.norm(add(tokens, found), block.norm2)
    hidden = layers.mlp(tokens, [block.mlp["lin1"], block.mlp["lin2"]])  # type: ignore[list-item]
    tokens = layers.norm(add(tokens, hidden), block.norm3)
    found = _image_to_tokens(
        layers, block.cross_attn_image_to_token, keys, add(tokens, prompt), tokens, sizes
    )
    return tokens, layers.norm(add(pixels, found), block.norm4)


def _heads(layers: Layers, node: Node, heads: int) -> Node:
    """(N, T, heads * d) to (N, heads, T, d)."""
    return layers.transpose(layers.reshape(node, 0, 0, heads, -1), 0, 2, 1, 3)


def _attend(layers: Layers, attention: Attention, q: Node, v: Node) -> Node:
    """Attend from tokens q (N, T, C) to the same tokens; v without their position encoding."""
    parts = ((q, attention.q_proj), (q, attention.k_proj), (v, attention.v_proj))
    split = [_heads(layers, layers.linear(node, layer), attention.heads) for node, layer in parts]
    mixed = layers.transpose(layers.op.scaled_dot_product_attention(*split), 0, 2, 1, 3)
    return layers.linear(layers.reshape(mixed, 0, 0, -1), attention.out_proj)


def _by_head(layer: nn.Linear, heads: int) -> FloatArray:
    """Return the weight (heads * d, C) as (1, heads, d, C)."""
    weight = values(layer.weight)
    return weight.reshape(1, heads, -1, weight.shape[1])


def _tokens_to_image(
    layers: Layers, attention: Attention, q: Node, keys: Node, pixels: Node, sizes: _Sizes
) -> Node:
    """Attend from tokens q (N, T, C) to the image: keys with, pixels (N or 1, L, C) without encoding."""
    op, heads, width = layers.op, attention.heads, sizes.width
    to_key, to_value = _by_head(attention.k_proj, heads), _by_head(attention.v_proj, heads)
    to_key = to_key / np.sqrt(to_key.shape[2], dtype=np.float32)
    # The keys' bias raises all scores of a query alike: the softmax drops it.
    queries = _heads(layers, layers.linear(q, attention.q_proj), heads)
    queries = layers.reshape(op.matmul(queries, layers.const(to_key), False, False), 0, -1, width)
    # (N, L, heads * T) with the softmax over L: OpenVINO's fused attention fails on open sizes in bfloat16.
    weights = op.softmax(op.matmul(keys, queries, False, True), 1)
    mixed = op.matmul(weights, pixels, True, False)
    mixed = op.reshape(mixed, layers.join(-1, heads, sizes.tokens, width), False)
    mixed = op.matmul(mixed, layers.const(to_value), False, True)  # (N, heads, T, d)
    mixed = layers.reshape(layers.transpose(mixed, 0, 2, 1, 3), 0, 0, -1)
    weight = values(attention.out_proj.weight)
    return layers.affine(
        mixed, weight, values(attention.out_proj.bias) + weight @ values(attention.v_proj.bias)
    )


def _image_to_tokens(
    layers: Layers, attention: Attention, keys: Node, q: Node, tokens: Node, sizes: _Sizes
) -> Node:
    """Attend from the image (its encoded pixels `keys`, (N or 1, L, C)) to tokens (N, T, C); q encoded."""
    op, heads, width = layers.op, attention.heads, sizes.width
    to_query = _by_head(attention.q_proj, heads)
    scale = np.float32(1 / np.sqrt(to_query.shape[2]))
    bias = values(attention.q_proj.bias).reshape(1, heads, -1, 1)
    to_out = values(attention.out_proj.weight).reshape(width, heads, -1).transpose(1, 2, 0)[None]

    def flat(node: Node, last: int) -> Node:  # (N, heads, T, last) to (N, T * heads, last)
        return layers.reshape(layers.transpose(node, 0, 2, 1, 3), 0, -1, last)

    known = _heads(layers, layers.linear(q, attention.k_proj), heads)
    rows = flat(op.matmul(known, layers.const(scale * to_query), False, False), width)
    offset = flat(op.matmul(known, layers.const(scale * bias), False, False), 1)
    value = _heads(layers, layers.linear(tokens, attention.v_proj), heads)
    value = flat(op.matmul(value, layers.const(to_out), False, False), width)
    scores = op.add(op.matmul(rows, keys, False, True), offset)  # (N, T * heads, L)
    shape = op.shape_of(scores)
    scores = op.reshape(scores, layers.join(-1, sizes.tokens, heads * sizes.area), False)
    weights = op.reshape(op.softmax(scores, 1), shape, False)
    found = op.matmul(weights, value, True, False)  # (N, L, C)
    return op.add(found, layers.const(values(attention.out_proj.bias).reshape(1, 1, -1)))


def _token(layers: Layers, tokens: Node, index: int, width: int) -> Node:
    """Take one of the decoder's own tokens: (N, T, C) to (N, 1, C)."""
    ints = layers.ints
    return layers.reshape(
        layers.op.slice(tokens, ints(index), ints(index + 1), ints(1), ints(1)), -1, 1, width
    )


def _fourfold(layer: nn.ConvTranspose2d) -> tuple[FloatArray, FloatArray, int]:
    """Return a 2 x 2 upscaling as weight and bias of four linear layers, and the channels of each."""
    weight = values(layer.weight).transpose(2, 3, 1, 0)  # (2, 2, out, in)
    channels = weight.shape[2]
    return weight.reshape(4 * channels, -1), np.tile(values(layer.bias), 4), channels


def _masks(
    layers: Layers, decoder: MaskDecoder, tokens: Node, pixels: Node, wanted: Node, size: tuple[int, int]
) -> Node:
    """Upscale the image tokens and multiply them with the masks' kernels.

    The upscaled pixels stay in the order of the tokens; only the finished logits are put into place.
    """
    op, (height, width), up = layers.op, size, decoder.output_upscaling
    area = height * width
    weight, bias, channels = _fourfold(up[0])  # type: ignore[arg-type]
    pixels = layers.reshape(layers.affine(pixels, weight, bias), 0, 4 * area, channels)
    pixels = layers.gelu(layers.norm(pixels, up[1]))
    weight, bias, channels = _fourfold(up[3])  # type: ignore[arg-type]
    pixels = layers.reshape(layers.gelu(layers.affine(pixels, weight, bias)), 0, 16 * area, channels)
    outer = decoder.iou_token.weight.shape[1]
    kernels = [
        layers.mlp(_token(layers, tokens, 1 + i, outer), head.layers)  # type: ignore[arg-type]
        for i, head in enumerate(decoder.output_hypernetworks_mlps)
    ]
    chosen = op.gather(op.concat(kernels, 1), wanted, op.constant(np.int64(1)))  # (N, M, C/8)
    logits = op.matmul(chosen, pixels, False, True)  # (N, M, 16 L), of each token four 2 x 2 blocks
    logits = layers.reshape(logits, 0, 0, height, width, 2, 2, 2, 2)
    logits = layers.transpose(logits, 0, 1, 2, 4, 6, 3, 5, 7)
    return layers.reshape(logits, 0, 0, 4 * height, 4 * width)


def proposal_graph(openvino: Any, head: ProposalHead, kind: str = "f32") -> Any:
    """Build the graph of a proposal head.

    Parameters
    ----------
    openvino
        The module, from `load_openvino`.
    head
        In evaluation mode.
    kind
        Type of the tokens: `f32` or `bf16`.

    Returns
    -------
    openvino.Model
        Tokens (1, h, w, C) -> (1, 5, 2h, 2w) as `Sam.propose`.
    """
    layers, trunk = Layers(openvino), head.trunk
    op = layers.op
    weight, bias, channels = _fourfold(trunk[0])  # type: ignore[arg-type]
    tokens = layers.parameter("tokens", (1, -1, -1, weight.shape[1]), kind)
    height, width = layers.sides(tokens, 1, 2)
    x = layers.affine(op.convert(tokens, "f32") if kind != "f32" else tokens, weight, bias)
    x = op.reshape(x, layers.join(height, width, 2, 2, channels), False)
    x = layers.gelu(layers.norm(x, trunk[1]))
    x = layers.transpose(x, 4, 0, 2, 1, 3)  # (C, h, 2, w, 2)
    two = layers.ints(2)
    x = op.reshape(x, layers.join(1, channels, op.multiply(height, two), op.multiply(width, two)), False)
    for conv in (trunk[3], trunk[5]):
        x = layers.conv(x, conv, gelu=True)  # type: ignore[arg-type]
    centres = op.sigmoid(layers.conv(x, head.centre))
    distances = op.exp(op.minimum(layers.conv(x, head.sides), op.constant(np.float32(FARTHEST))))
    distances = op.multiply(distances, op.constant(np.float32(PROPOSAL_STRIDE)))
    return layers.model("proposals", [op.concat([centres, distances], 1)], [tokens])
