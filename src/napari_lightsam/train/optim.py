"""The optimiser: Muon for matrices, AdamW for everything else, behind one small face."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_THIN = 16  # a matrix with a side below this has hardly any directions to even out
_TABLES = ("embed", "token", "attention_bias")  # rows are looked up one by one: no matrices in Muon's sense


class Optimizer:
    """Muon on a model's weight matrices, kernels of convolutions among them; AdamW on the rest.

    Muon evens out the directions of a matrix's update, so that rare ones are learned as fast as frequent
    ones. Its steps are scaled to AdamW's size, so that both go by one learning rate.

    Parameters
    ----------
    model
        Parameters that do not require a gradient are left alone.
    learning_rate, weight_decay
        The decay is for matrices and tables, not for vectors.
    slower
        Beginnings of the names of parameters that learn at a part of the rate, with that part.

    References
    ----------
    Jordan et al., *Muon*, kellerjordan.github.io/posts/muon, 2024. Liu et al., *Muon is Scalable for LLM
    Training*, arXiv 2502.16982 (the scale of a step).
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        weight_decay: float,
        slower: Mapping[str, float] | None = None,
    ) -> None:
        self._matrices: list[Tensor] = []
        self._flat: list[Tensor] = []  # torch's Muon takes matrices only: each kernel as one, on its memory
        self._rest: list[Tensor] = []
        muon: dict[float, list[Tensor]] = {}
        adam: dict[tuple[float, bool], list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            share = next((part for start, part in (slower or {}).items() if name.startswith(start)), 1.0)
            if _is_matrix(name, parameter):
                self._matrices.append(parameter)
                self._flat.append(nn.Parameter(_flat(parameter.detach(), parameter)))
                muon.setdefault(share, []).append(self._flat[-1])
            else:
                self._rest.append(parameter)
                adam.setdefault((share, parameter.ndim > 1), []).append(parameter)
        self._parts: list[torch.optim.Optimizer] = []
        if adam:
            groups = [
                {"params": members, "share": share, "weight_decay": weight_decay if decays else 0.0}
                for (share, decays), members in adam.items()
            ]
            self._parts.append(torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True))
        if muon:
            groups = [{"params": members, "share": share} for share, members in muon.items()]
            self._parts.append(
                torch.optim.Muon(
                    groups, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of both."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * group["share"]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in (*self._matrices, *self._rest):
            parameter.grad = None

    def step(self) -> None:
        """Change the weights by their gradients."""
        for matrix, flat in zip(self._matrices, self._flat, strict=True):
            flat.grad = None if matrix.grad is None else _flat(matrix.grad, matrix)
        for part in self._parts:
            part.step()
        for flat in self._flat:
            flat.grad = None

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what a continued run needs."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Continue from `state_dict`."""
        for part, own in zip(self._parts, state, strict=True):
            part.load_state_dict(own)


def _flat(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Show a kernel (O, I, h, w) as a matrix with a row for each output, in the order of the memory."""
    return tensor.flatten(1) if parameter.is_contiguous() else tensor.movedim(1, -1).flatten(1)


def _is_matrix(name: str, parameter: Tensor) -> bool:
    if parameter.ndim < 2 or any(table in name for table in _TABLES):
        return False
    return min(parameter.shape[0], parameter[0].numel()) >= _THIN
