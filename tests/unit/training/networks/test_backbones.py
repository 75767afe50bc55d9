"""Parameter counts to the unit, the published structure, and what the options change."""

from dataclasses import replace

import pytest
import torch
from sphereid_training import networks
from sphereid_training.config import BackboneConfig
from sphereid_training.errors import TrainingError
from sphereid_training.networks.activation import PReLU
from sphereid_training.networks.sphereface import ResidualUnit, SphereFaceNet
from torch import nn

# Total with the residual convolutions' biases, which the released nets freeze at 0 and ours leave out.
TABLE = [
    ("sphereface4", 12_562_496, 0),
    ("sphereface10", 15_219_264, 1_280),
    ("sphereface20", 22_670_656, 3_712),
    ("sphereface36", 32_778_816, 7_424),
    ("sphereface64", 48_200_512, 13_696),
]


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("name", "total", "frozen"), TABLE)
def test_parameter_counts_are_those_of_the_paper(name: str, total: int, frozen: int) -> None:
    with torch.device("meta"):
        net = networks.build(BackboneConfig(name=name), (112, 96))
    residual = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.stride == (1, 1)]
    assert parameters(net) + frozen == total
    assert sum(m.out_channels for m in residual) == frozen


def test_the_released_64_layer_net_has_one_unit_less() -> None:
    with torch.device("meta"):
        net = networks.build(BackboneConfig(name="sphereface64_released"), (112, 96))
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    frozen = sum(m.out_channels for m in convolutions if m.stride == (1, 1))
    assert len(convolutions) == 62
    assert parameters(net) + frozen == 47_905_088


def test_a_square_input_adds_its_fully_connected_weights() -> None:
    with torch.device("meta"):
        counts = [parameters(networks.build(BackboneConfig(name="sphereface4"), (112, w))) for w in (96, 112)]
    assert counts[1] - counts[0] == 512 * 7 * 512 == 1_835_008


def test_a_unit_adds_its_branch_without_activation_after_the_sum() -> None:
    unit = ResidualUnit(4, batch_norm=False)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    conv1, act1, conv2, act2 = unit.body
    assert torch.equal(unit(x), x + act2(conv2(act1(conv1(x)))))
    assert (unit(-10 * x.abs()) < 0).any()


def test_initial_weights_follow_caffe() -> None:
    torch.manual_seed(0)
    net = SphereFaceNet((1, 1, 1, 1), width=16, embedding_size=64)
    strided = net.features[0]
    assert isinstance(strided, nn.Conv2d)
    bound = (3 / 27) ** 0.5
    assert strided.weight.abs().max() <= bound
    assert strided.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    unit = next(m for m in net.modules() if isinstance(m, ResidualUnit))
    assert unit.body[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert unit.body[1].weight.unique().tolist() == [0.25]
    assert net.fc.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("name", "gigamacs"),
    [
        ("sphereface4", (0.164, 0.192)),
        ("sphereface10", (0.759, 0.885)),
        ("sphereface20", (1.750, 2.041)),
        ("sphereface36", (3.335, 3.891)),
        ("sphereface64", (6.110, 7.128)),
        ("sphereface64_released", (5.912, 6.897)),
    ],
)
def test_multiply_adds_for_both_templates(name: str, gigamacs: tuple[float, float]) -> None:
    for columns, expected in zip((96, 112), gigamacs, strict=True):
        with torch.device("meta"):
            net = networks.build(BackboneConfig(name=name), (112, columns))
        assert networks.multiply_adds(net, (112, columns)) / 1e9 == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(
    ("name", "embedding", "count", "megamacs"),
    [
        # MobileFaceNet: 1.0 M and 221 MMAC; IResNets: ArcFace's published 24.0, 43.6 and 65.2 M.
        ("mobilefacenet", 128, 1_003_136, 221),
        ("iresnet18", 512, 24_025_600, 2_610),
        ("iresnet50", 512, 43_590_848, 6_309),
        ("iresnet100", 512, 65_156_160, 12_090),
    ],
)
def test_later_backbones_have_their_published_cost(
    name: str, embedding: int, count: int, megamacs: int
) -> None:
    with torch.device("meta"):
        net = networks.build(BackboneConfig(name=name, embedding_size=embedding), (112, 112))
    assert parameters(net) == count
    assert networks.multiply_adds(net, (112, 112)) / 1e6 == pytest.approx(megamacs, abs=1)


@pytest.mark.parametrize("name", ["mobilefacenet", "iresnet18"])
def test_later_backbones_run_fold_and_export(name: str) -> None:
    from sphereid_training.export.model import fold_batch_norm, measure_parity, to_onnx

    torch.manual_seed(0)
    net = networks.build(BackboneConfig(name, width=8, embedding_size=16), (56, 48))
    for _ in range(2):
        assert net(torch.randn(4, 3, 56, 48)).shape == (4, 16)
    net.eval()
    model = to_onnx(fold_batch_norm(net), (56, 48), {})
    assert max(measure_parity(model, net, (56, 48)).values()) < 1e-4


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("size", [(112, 96), (56, 48)])
def test_every_option_gives_embeddings_of_the_asked_size(batch_norm: bool, size: tuple[int, int]) -> None:
    config = BackboneConfig("sphereface10", width=8, batch_norm=batch_norm, embedding_size=24)
    net = networks.build(config, size).eval()
    assert net(torch.zeros(3, 3, *size)).shape == (3, 24)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TrainingError, match="sphereface20"):
        networks.build(BackboneConfig(name="resnet"), (112, 96))


def test_speed_counts_what_the_network_is() -> None:
    from sphereid_training.config import Config
    from sphereid_training.loop.speed import measure_speed

    made = measure_speed(Config(backbone=BackboneConfig("sphereface4", width=8)), batch=2, repeats=1)
    with torch.device("meta"):
        net = networks.build(BackboneConfig("sphereface4", width=8), (112, 96))
    assert made.parameters == parameters(net)
    assert made.multiply_adds == networks.multiply_adds(net, (112, 96))
    assert 0 < made.images_per_cpu_second < 1e6


def test_the_last_map_can_be_averaged_to_the_size_that_half_the_resolution_had() -> None:
    whole = BackboneConfig("sphereface4", width=4, batch_norm=True, embedding_size=8, map_pool=2)
    half = replace(whole, map_pool=1)
    full, small = (
        networks.build(whole, (112, 96)).eval(),
        networks.build(half, (56, 48)).eval(),
    )
    full.load_state_dict(small.state_dict())  # every parameter fits
    pixels = torch.rand(2, 3, 112, 96)
    maps = full.features(pixels)  # 7 × 6: the last row of squares holds one row alone
    squares = [
        maps[:, :, y : y + 2, x : x + 2].mean(dim=(2, 3)) for y in range(0, 7, 2) for x in range(0, 6, 2)
    ]
    expected = full.norm(full.fc(torch.stack(squares, dim=2).flatten(1)))
    assert torch.allclose(full(pixels), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3, 2)])
def test_prelu_is_torchs_and_its_gradients_are_exact(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    ours, torchs = PReLU(5).double(), nn.PReLU(5).double()
    slopes = torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.7], dtype=torch.float64)
    for module in (ours, torchs):
        module.weight.data.copy_(slopes)
    x = torch.randn(shape, dtype=torch.float64)
    x.view(-1)[0] = 0
    results = []
    for module in (ours, torchs):
        inputs = x.clone().requires_grad_()
        output = module(inputs)
        output.pow(2).sum().backward()
        results.append((output.detach(), inputs.grad, module.weight.grad))
    for mine, reference in zip(*results, strict=True):
        assert mine is not None
        assert torch.allclose(mine, reference, rtol=1e-12, atol=1e-12)
    apart = torch.where(x.abs() < 1e-2, 0.5, x).requires_grad_()
    assert torch.autograd.gradcheck(ours, (apart,))
    assert torch.equal(ours.eval()(x), results[0][0])


def test_prelu_learns_in_bf16_beside_slopes_in_float32() -> None:
    torch.manual_seed(0)
    module, reference = PReLU(8), nn.PReLU(8)
    x = torch.randn(16, 8, 10, 10)
    with torch.autocast("cpu", torch.bfloat16):
        module(x.bfloat16()).float().pow(2).sum().backward()
    reference(x).pow(2).sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.dtype == torch.float32
    assert torch.allclose(module.weight.grad, reference.weight.grad, rtol=0.03, atol=1)
