"""MLP, ConvNet and ResNet: parameter counts in closed form, limits, shapes and seeds."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from offprint.models.convnet import ConvNet
from offprint.models.mlp import MLP
from offprint.models.resnet import BasicBlock, ResNet
from offprint.models.transformer import TransformerEncoder


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


NETWORKS = {
    "mlp": (lambda **options: MLP((3, 8, 8), [16, 16], 5, dropout=0.1, normalization="layer", **options), (2, 3, 8, 8)),
    "convnet": (lambda **options: ConvNet(3, [8, 12], 5, normalization="group", **options), (2, 3, 9, 7)),
    "resnet": (lambda **options: ResNet(3, 5, widths=(8, 16), n_blocks=(1, 1), **options), (2, 3, 9, 7)),
    "transformer": (
        lambda **options: TransformerEncoder(8, 2, 2, 5, in_features=3, positions="rotary", pooling="mean", **options),
        (2, 6, 3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_network_keeps_the_dtype_splits_at_its_head_and_restores_from_its_state(name, dtype):
    make, shape = NETWORKS[name]
    model, copy = make(generator=0).to(dtype).eval(), make(generator=1).to(dtype).eval()
    inputs = draw(*shape, dtype=dtype)
    outputs = model(inputs)
    assert outputs.shape == (2, 5)
    assert outputs.dtype == dtype
    assert torch.equal(outputs, model.head(model.features(inputs)))
    assert not torch.equal(outputs, copy(inputs))
    copy.load_state_dict(model.state_dict())
    assert torch.equal(outputs, copy(inputs))
    assert all(".module." not in key and not key.startswith("_") for key in model.state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_generator_decides_the_weights_and_the_global_state_is_untouched(name):
    make, _ = NETWORKS[name]
    before = torch.get_rng_state()
    states = [make(generator=generator).state_dict() for generator in (4, torch.Generator().manual_seed(4))]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    torch.manual_seed(0)
    first = make().state_dict()
    torch.manual_seed(0)
    assert all(torch.equal(value, first[key]) for key, value in make().state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name):
    make, shape = NETWORKS[name]
    model = make(generator=0).double()
    model(draw(*shape)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters())


def test_mlp_is_the_formula():
    model = MLP(4, [5], 3, activation=nn.Tanh, generator=0).double()
    (w1, b1), (w2, b2) = ((layer.weight, layer.bias) for layer in (model.features[0], model.head))
    inputs = draw(2, 6, 4)
    torch.testing.assert_close(model(inputs), torch.tanh(inputs @ w1.T + b1) @ w2.T + b2)
    assert n_parameters(MLP(7, [11, 13], 2)) == 8 * 11 + 12 * 13 + 14 * 2
    assert n_parameters(MLP(7, [11, 13], 2, bias=False)) == 7 * 11 + 11 * 13 + 13 * 2
    assert n_parameters(MLP(7, [11], 2, normalization="batch")) == 8 * 11 + 2 * 11 + 12 * 2


def test_mlp_without_hidden_layers_is_linear_and_a_shape_flattens():
    linear = MLP((1, 8, 8), [], 10, generator=0)
    images = draw(3, 1, 8, 8, dtype=torch.float32)
    torch.testing.assert_close(linear(images), linear.head(images.flatten(1)))
    assert n_parameters(linear) == 650


def test_mlp_drops_units_only_in_training():
    model = MLP(4, [1000], 1, dropout=0.25, generator=0)
    hidden = model.features[:2](torch.ones(1, 4))
    torch.manual_seed(0)
    dropped = (model.features(torch.ones(1, 4)) == 0) & (hidden > 0)
    # Binomial(about 500, 1/4): within five standard deviations, false alarm 6e-7.
    n = int((hidden > 0).sum())
    assert abs(int(dropped.sum()) - n / 4) < 5 * (n * 3 / 16) ** 0.5
    assert torch.equal(model.eval().features(torch.ones(1, 4)), hidden)


def test_convnet_counts_sizes_and_formula():
    plain = n_parameters(ConvNet(3, [8, 16], 5, normalization=None))
    assert plain == (3 * 9 * 8 + 8) + (8 * 9 * 16 + 16) + 17 * 5
    assert n_parameters(ConvNet(3, [8, 16], 5, kernel_size=5)) == 3 * 25 * 8 + 16 + 8 * 25 * 16 + 32 + 17 * 5
    model = ConvNet(2, [4, 6], 3, normalization=None, generator=0).double()
    first, second = model.features[0], model.features[3]
    inputs = draw(2, 2, 7, 5)
    hidden = functional.max_pool2d(first(inputs).relu(), 2, ceil_mode=True)
    assert hidden.shape[2:] == (4, 3)
    torch.testing.assert_close(model(inputs), model.head(second(hidden).relu().mean((2, 3))))
    assert model(draw(1, 2, 1, 1)).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Counts that others publish for these networks on CIFAR-10, whose shortcuts are 1x1 convolutions too.
        ({}, 272_474),
        ({"widths": (64, 128, 256, 512), "n_blocks": (2, 2, 2, 2)}, 11_173_962),
        ({"widths": (64, 128, 256, 512), "n_blocks": (3, 4, 6, 3), "block": "bottleneck"}, 23_520_842),
    ],
)
def test_resnets_have_the_published_numbers_of_parameters(options, expected):
    with torch.device("meta"):  # counting needs no memory
        assert n_parameters(ResNet(3, 10, **options)) == expected


def test_resnet_blocks_that_start_at_zero_pass_their_input_on():
    model = ResNet(3, 4, widths=(8, 8), n_blocks=(2, 2), zero_residual=True, generator=0).double().eval()
    stem = model.features[:3](draw(2, 3, 12, 12))
    assert torch.equal(model.features[3:5](stem), stem)  # identity shortcuts; the stem is not negative
    model(draw(2, 3, 12, 12)).square().sum().backward()
    assert all(block.branch[-1].weight.grad.any() for block in model.features[3:7])  # and branches can leave zero
    halved = model.features[5](stem)
    torch.testing.assert_close(halved, model.features[5].shortcut(stem).relu())
    assert halved.shape == (2, 8, 6, 6)
    assert not torch.equal(ResNet(3, 4, widths=(8,), n_blocks=(1,)).double().eval().features[3](stem), stem)


def test_a_basic_block_is_the_formula():
    block = BasicBlock(3, 3, 1).double().eval()
    first, second = block.branch[0].weight, block.branch[3].weight
    inputs = draw(2, 3, 5, 5)
    scale = (1 + 1e-5) ** -0.5  # batch normalisation at its start
    hidden = functional.conv2d(inputs, first, padding=1).mul(scale).relu()
    expected = (inputs + functional.conv2d(hidden, second, padding=1) * scale).relu()
    torch.testing.assert_close(block(inputs), expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLP(0, [3], 2), "in_features, hidden_sizes and out_features must be at least 1; got 0"),
        (lambda: MLP((), [3], 2), "in_features"),
        (lambda: MLP(2, [3, 0], 2), "hidden_sizes"),
        (lambda: MLP(2, [3], 2, dropout=1.0), "dropout must be in"),
        (lambda: ConvNet(1, [], 2), "channels"),
        (lambda: ConvNet(1, [2], 2, kernel_size=4), "kernel_size must be odd"),
        (lambda: ResNet(1, 2, widths=(4, 8), n_blocks=(1,)), "widths and n_blocks"),
        (lambda: ResNet(1, 2, widths=(4,), n_blocks=(0,)), "n_blocks must be at least 1"),
    ],
)
def test_bad_sizes_are_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()
