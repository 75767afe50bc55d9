"""Muon moves a backbone's matrices by near-orthogonal steps, and leaves everything else to AdamW."""

import numpy as np
import pytest
import torch
from sphereid_training.loop.muon import MuonAdamW, as_matrix
from sphereid_training.networks.mobilefacenet import MobileFaceNet
from torch import Tensor, nn

LR = 0.01


class Net(nn.Module):
    """A backbone with each kind of layer, and a head beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Flatten(),
            nn.Linear(8 * 4, 6),
        )
        self.head = nn.Linear(6, 8)

    def backward(self) -> None:
        pixels = torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(1))
        self.head(self.backbone(pixels)).pow(2).sum().backward()

    def groups(self) -> list[dict[str, object]]:
        return [{"params": list(self.parameters()), "weight_decay": 0.0}]


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def net(request: pytest.FixtureRequest) -> Net:
    return Net().to(memory_format=request.param)


def moves(net: Net, optimizer: MuonAdamW | torch.optim.Optimizer, steps: int = 1) -> dict[str, Tensor]:
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for _ in range(steps):
        net.zero_grad()
        net.backward()
        optimizer.step()
    return {name: p.detach() - before[name] for name, p in net.named_parameters()}


@pytest.mark.parametrize("name", ["backbone.0.weight", "backbone.5.weight"])
def test_a_step_is_the_gradient_with_all_singular_values_alike(net: Net, name: str) -> None:
    """The oracle is the polar factor by SVD. Five Newton–Schulz steps bring singular values to 0.7…1.2."""
    net.backward()
    gradient = net.get_parameter(name).grad
    assert gradient is not None
    u, _, vt = np.linalg.svd(gradient.flatten(1).double().numpy(), full_matrices=False)
    move = moves(net, MuonAdamW(net.backbone, net.groups(), LR))[name].flatten(1).double().numpy()
    size = -LR * 0.2 * np.sqrt(max(move.shape))
    inner = u.T @ (move / size) @ vt.T
    assert np.all((np.diag(inner) > 0.6) & (np.diag(inner) < 1.3))
    assert np.abs(inner - np.diag(np.diag(inner))).max() < 0.05


def test_all_other_parameters_move_as_with_adamw(net: Net) -> None:
    adamw = moves(net, torch.optim.AdamW(net.groups(), lr=LR))
    fresh = Net()
    moved = moves(fresh, MuonAdamW(fresh.backbone, fresh.groups(), LR))
    for name in moved:
        same = torch.allclose(moved[name], adamw[name], atol=1e-6)
        assert same == (name not in ("backbone.0.weight", "backbone.5.weight")), name


def test_memory_formats_move_alike() -> None:
    one, other = Net(), Net().to(memory_format=torch.channels_last)
    a, b = (moves(net, MuonAdamW(net.backbone, net.groups(), LR), 3) for net in (one, other))
    for name in ("backbone.0.weight", "backbone.5.weight"):  # bfloat16 inside: about 1 % of a step
        torch.testing.assert_close(a[name], b[name], atol=0.03 * LR, rtol=0)


def test_decay_is_that_of_the_group_and_rates_are_set_for_both(net: Net) -> None:
    groups: list[dict[str, object]] = [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": 0.5},
        {"params": [p for p in net.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = MuonAdamW(net.backbone, groups, LR)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0, 0.5]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert all(not move.any() for move in moves(net, optimizer).values())


def test_depthwise_convolutions_are_left_to_adamw() -> None:
    network = MobileFaceNet(width=32)
    optimizer = MuonAdamW(network, [{"params": list(network.parameters()), "weight_decay": 0.0}], LR)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    grouped = {id(part.weight) for part in convolutions if part.groups > 1}
    assert grouped
    assert not grouped & {id(weight) for weight in optimizer.weights}


@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (4, 7)])
def test_a_matrix_shares_its_weights_memory(shape: tuple[int, ...]) -> None:
    weight = torch.zeros(shape)
    for one in [weight] if len(shape) == 2 else [weight, weight.to(memory_format=torch.channels_last)]:
        as_matrix(one).fill_(1)
        assert one.min() == 1
