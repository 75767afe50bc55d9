"""Muon for a backbone's matrices, AdamW for the rest."""

from typing import Any

import torch
from torch import Tensor, nn


class MuonAdamW:
    """Two optimizers of torch that take their steps together.

    The backbone's convolutions (those without groups) and fully connected layers move by Muon (Jordan et
    al., 2024): momentum, brought near to an orthogonal matrix. All other parameters move by AdamW. Muon's
    updates are scaled to be about as large as AdamW's (`match_rms_adamw`, Liu et al., 2025), so that one
    learning rate serves both.

    backbone: on its device and in its memory format already, for its weights are moved where they lie.
    groups: what AdamW would be given, `params` and `weight_decay` each, the backbone's among them; Muon's
    decay is that of the group its weights come from.
    """

    def __init__(self, backbone: nn.Module, groups: list[dict[str, Any]], lr: float) -> None:
        self.weights = [
            module.weight
            for module in backbone.modules()
            if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        ]
        self._matrices = [nn.Parameter(as_matrix(weight.detach())) for weight in self.weights]
        taken = {id(weight) for weight in self.weights}
        decay = next(g["weight_decay"] for g in groups if any(id(p) in taken for p in g["params"]))
        rest = [{**group, "params": [p for p in group["params"] if id(p) not in taken]} for group in groups]
        self._adamw = torch.optim.AdamW(rest, lr=lr)
        self._muon = torch.optim.Muon(
            self._matrices, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """AdamW's groups and Muon's, to set their `lr`."""
        return [*self._adamw.param_groups, *self._muon.param_groups]

    def step(self) -> None:
        """Move all weights by their gradients."""
        for weight, matrix in zip(self.weights, self._matrices, strict=True):
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad)
        self._adamw.step()
        self._muon.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' states."""
        return {"adamw": self._adamw.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._adamw.load_state_dict(state["adamw"])
        self._muon.load_state_dict(state["muon"])


def as_matrix(weight: Tensor) -> Tensor:
    """A view of a (O, I, H, W) or (O, I) weight or gradient as (O, I·H·W), in the order of its memory.

    Another order of columns would change no update. Raises RuntimeError where memory does not allow a view.
    """
    if weight.dim() == 4 and not weight.is_contiguous():
        weight = weight.permute(0, 2, 3, 1)
    return weight.view(len(weight), -1)
