"""Layers of a torch network as OpenVINO operations, with what can be folded already folded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from napari_lightsam.engine.resample import FloatArray

__all__ = ["Layers", "values", "with_norm"]

Node = Any  # OpenVINO is imported late, so its types are not at hand


def values(tensor: Tensor | None) -> FloatArray:
    """Return a parameter as a float32 array that shares its memory where it can."""
    assert tensor is not None
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


def with_norm(linear: nn.Linear, norm: nn.LayerNorm) -> tuple[FloatArray, FloatArray]:
    """Return weight and bias of a linear layer that also does the scaling and shift of the norm before it."""
    weight = values(linear.weight)
    bias = values(linear.bias) + weight @ values(norm.bias)
    return weight * values(norm.weight), bias


class Layers:
    """Makes graph nodes; tokens are (..., channels), maps (1, channels, height, width).

    Parameters
    ----------
    openvino
        The module, from `load_openvino`.
    """

    def __init__(self, openvino: Any) -> None:
        self.openvino = openvino
        self.op: Any = importlib.import_module("openvino.opset13")

    def parameter(self, name: str, shape: Sequence[int], kind: str = "f32") -> Node:
        """Make an input; sides of -1 are open."""
        node = self.op.parameter(self.openvino.PartialShape(list(shape)), getattr(self.openvino.Type, kind))
        node.set_friendly_name(name)
        return node

    def model(self, name: str, outputs: Sequence[Node], inputs: Sequence[Node]) -> Any:
        """Close a graph."""
        return self.openvino.Model([self.op.result(node) for node in outputs], list(inputs), name)

    def const(self, array: FloatArray) -> Node:
        """Make a constant that shares the array's memory."""
        return self.op.constant(np.ascontiguousarray(array, np.float32), shared_memory=True)

    def ints(self, *numbers: int) -> Node:
        """Make a constant list of whole numbers."""
        return self.op.constant(np.array(numbers, np.int64))

    def join(self, *parts: Node | int) -> Node:
        """Put numbers and lists of numbers together into one list."""
        whole = [self.ints(part) if isinstance(part, int) else part for part in parts]
        return self.op.concat(whole, 0)

    def sides(self, node: Node, *axes: int) -> list[Node]:
        """Return sides of a node whose shape is open, each as a list of one number."""
        shape, first = self.op.shape_of(node), self.op.constant(np.int64(0))
        return [self.op.gather(shape, self.ints(axis), first) for axis in axes]

    def reshape(self, node: Node, *shape: int) -> Node:
        """Reshape to a fixed shape with at most one -1; 0 keeps the side."""
        return self.op.reshape(node, self.ints(*shape), True)

    def transpose(self, node: Node, *axes: int) -> Node:
        """Reorder axes."""
        return self.op.transpose(node, self.ints(*axes))

    def tokens_last(self, node: Node) -> Node:
        """(B, C, H, W) to (B, H, W, C)."""
        return self.transpose(node, 0, 2, 3, 1)

    def channels_first(self, node: Node) -> Node:
        """(B, H, W, C) to (B, C, H, W)."""
        return self.transpose(node, 0, 3, 1, 2)

    def gelu(self, node: Node) -> Node:
        """Exact GELU, as torch's default."""
        return self.op.gelu(node, "ERF")

    def conv(self, node: Node, conv: nn.Conv2d, *, gelu: bool = False) -> Node:
        """Convolve a map; grouped convolutions are depth-wise or nearly so."""
        weight, groups = values(conv.weight), conv.groups
        stride, pad = list(conv.stride), list(conv.padding)
        if groups == 1:
            node = self.op.convolution(node, self.const(weight), stride, pad, pad, [1, 1])
        else:
            weight = weight.reshape(groups, -1, *weight.shape[1:])
            node = self.op.group_convolution(node, self.const(weight), stride, pad, pad, [1, 1])
        if conv.bias is not None:
            node = self.op.add(node, self.const(values(conv.bias).reshape(1, -1, 1, 1)))
        return self.gelu(node) if gelu else node

    def affine(self, node: Node, weight: FloatArray, bias: FloatArray) -> Node:
        """Multiply tokens by weight (out, in) and add the bias."""
        node = self.op.matmul(node, self.const(weight), False, True)
        return self.op.add(node, self.const(bias.reshape(1, 1, -1)))

    def linear(self, node: Node, layer: nn.Linear) -> Node:
        """Apply a linear layer to tokens."""
        return self.affine(node, values(layer.weight), values(layer.bias))

    def mlp(self, node: Node, layers: Sequence[nn.Linear]) -> Node:
        """Apply linear layers with ReLU between them."""
        for layer in layers[:-1]:
            node = self.op.relu(self.linear(node, layer))
        return self.linear(node, layers[-1])

    def standardise(self, node: Node, eps: float) -> Node:
        """Layer norm of tokens without its scaling and shift."""
        return self.op.mvn(node, self.ints(-1), True, eps, "INSIDE_SQRT")

    def norm(self, node: Node, norm: Any) -> Node:
        """Layer norm of tokens; `norm` is a LayerNorm or a LayerNorm2d."""
        node = self.op.multiply(self.standardise(node, norm.eps), self.const(values(norm.weight)))
        return self.op.add(node, self.const(values(norm.bias)))
