"""Oracles: a plain loop of backward passes, `torch.func.vmap(grad)`, closed forms; in float64."""

import copy
from dataclasses import FrozenInstanceError
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sahelpers as sa
from sahelpers.fisher import _Squares
from sahelpers.store import load, save

Squares = dict[str, Tensor]


def squares_by_loop(module, losses, inputs, twins=None) -> Squares:
    """The definition: one backward pass per example, squared (or multiplied), added."""
    parameters = dict(module.named_parameters())

    def gradients(tensors, k):
        loss = losses(module, *(t[k : k + 1] for t in tensors)).sum()
        return torch.autograd.grad(loss, parameters.values(), materialize_grads=True)

    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for k in range(len(inputs[0])):
        one = gradients(inputs, k)
        two = one if twins is None else gradients(twins, k)
        for name, a, b in zip(total, one, two, strict=True):
            total[name] += a * b
    return total


def squares_by_vmap(module, losses, inputs) -> Squares:
    """The same with torch.func."""
    values = {name: p.detach() for name, p in module.named_parameters()}

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, *tensors):
            return losses(self.inner, *tensors)

    def loss(values, *example):
        inner = {f"inner.{name}": v for name, v in values.items()}
        return torch.func.functional_call(
            Wrapped(), inner, tuple(t.unsqueeze(0) for t in example)
        ).sum()

    axes = (None, *(0 for _ in inputs))
    each = torch.func.vmap(torch.func.grad(loss), in_dims=axes)(values, *inputs)
    return {name: g.square().sum(0) for name, g in each.items()}


def assert_equal(found: Squares, expected: Squares) -> None:
    """Relative 1e-5 where F > 0, an absolute floor where it is 0 (in float64: far below both)."""
    assert found.keys() == expected.keys()
    for name, right in expected.items():
        floor = 1e-12 * (1 + float(right.abs().max()))
        torch.testing.assert_close(found[name], right, rtol=1e-5, atol=floor, msg=name)


def negative_elbo(model, images, labels, noise) -> Tensor:
    return sum(sa.elbo_terms(model, images, labels, noise))


class Encoder(nn.Module):
    """With a norm, and an embedding of the class."""

    def __init__(self, latent_dim: int):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 4, stride=4), nn.GroupNorm(2, 4)
        self.label, self.last = nn.Embedding(10, 4 * 49), nn.Linear(4 * 49, 2 * latent_dim)

    def forward(self, images: Tensor, y: Tensor) -> Tensor:
        h = self.norm(self.conv(images)).tanh().flatten(1)
        return self.last(h + self.label(y.argmax(1)))


class Decoder(nn.Module):
    """With a layer that is used twice, and once more as a matrix."""

    def __init__(self, latent_dim: int):
        super().__init__()
        self.label, self.layer = nn.Linear(10, latent_dim), nn.Linear(latent_dim, 8)
        self.last = nn.Linear(8, 784)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.layer(z + self.label(y)).tanh() @ self.layer.weight
        return self.last(self.layer(h.tanh()).tanh())


def small_case(arch: str, n: int = 7, latent_dim: int = 3) -> tuple[sa.CVAE, tuple[Tensor, ...]]:
    """An untrained model in float64 and n examples (images, labels, noise)."""
    torch.manual_seed(0)
    if arch == "own":
        own = {"encoder": Encoder(latent_dim), "decoder": Decoder(latent_dim)}
        model = sa.CVAE(latent_dim=latent_dim, **own).double().eval()
    else:
        model = sa.CVAE(arch, latent_dim).double().eval()
    images = torch.rand(n, 1, 28, 28, dtype=torch.float64)
    labels = model.label_vectors(torch.arange(n) % 10)
    return model, (images, labels, torch.randn(n, latent_dim, dtype=torch.float64))


def some_data(n: int = 40, dtype=torch.float32) -> sa.LabelledImages:
    generator = sa.seeded(1)
    images = torch.rand(n, 1, 28, 28, generator=generator).to(dtype)
    return sa.LabelledImages(images, torch.arange(n) % 10)


def squared_sum(module, x) -> Tensor:
    """A loss that is not linear in the output, so that its gradient depends on it."""
    return module(x).flatten(1).square().sum(1)


def in_chunks(chunk: int, *arguments):
    """`squared_gradients` with so many examples in one pass."""
    with mock.patch("sahelpers.fisher.CHUNK", chunk):
        return sa.squared_gradients(*arguments)


def squares(each: Squares) -> dict[str, float]:
    """Sum over examples of (their entries' sum)^2, for every parameter."""
    return {name: float(values.square().sum()) for name, values in each.items()}


# Exactness


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_both_architectures_match_loop_and_vmap(arch):
    model, inputs = small_case(arch)
    found, _ = in_chunks(3, model, negative_elbo, inputs)
    assert_equal(found, squares_by_loop(model, negative_elbo, inputs))
    assert_equal(found, squares_by_vmap(model, negative_elbo, inputs))
    assert all(float(v.max()) > 0 for v in found.values())


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_products_of_two_draws_match_the_loop(arch):
    model, (images, labels, noise) = small_case(arch, n=4)
    twins = (images, labels, noise.flip(0))
    found, _ = in_chunks(3, model, negative_elbo, (images, labels, noise), twins)
    assert_equal(found, squares_by_loop(model, negative_elbo, (images, labels, noise), twins))
    assert any(float(v.min()) < 0 for v in found.values())  # unbiased, so not always positive


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 1000])
def test_chunk_size_changes_rounding_only(arch, chunk):
    model, inputs = small_case(arch)
    whole, whole_each = in_chunks(7, model, negative_elbo, inputs)
    found, found_each = in_chunks(chunk, model, negative_elbo, inputs)
    for name, right in whole.items():
        torch.testing.assert_close(found[name], right, rtol=1e-11, atol=1e-14)
    assert squares(found_each) == pytest.approx(squares(whole_each), rel=1e-11)


@st.composite
def spatial_layer(draw, channels: int) -> tuple[nn.Module, int]:
    """A random (transposed) convolution of an input with so many channels; its own channels."""
    transposed = draw(st.booleans())
    groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
    out = groups * draw(st.integers(1, 2))
    kernel, stride, padding, dilation = (
        (draw(st.integers(low, high)), draw(st.integers(low, high)))
        for low, high in ((1, 3), (1, 3), (0, 2), (1, 2))
    )
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if transposed:
        room = [max(pair) - 1 for pair in zip(stride, dilation, strict=True)]
        extra = (draw(st.integers(0, room[0])), draw(st.integers(0, room[1])))
        layer: nn.Module = nn.ConvTranspose2d(
            channels, out, kernel, output_padding=extra, **options
        )
    else:
        layer = nn.Conv2d(channels, out, kernel, **options)
    return layer, out


@st.composite
def small_network(draw) -> tuple[nn.Module, Tensor]:
    """Spatial layers with nonlinearities between, then linear layers; and a batch for it."""
    seed = draw(st.integers(0, 2**16))
    channels, n = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    height, width = draw(st.integers(5, 7)), draw(st.integers(5, 7))
    torch.manual_seed(seed)
    x = torch.randn(n, channels, height, width, dtype=torch.float64)
    layers: list[nn.Module] = []
    y = x
    for _ in range(draw(st.integers(1, 3))):
        layer, channels_after = draw(spatial_layer(channels))
        layer = layer.double()
        try:
            out = layer(y)
        except RuntimeError:  # kernel larger than the image, or output smaller than one pixel
            continue
        if out.numel() > 4000 or min(out.shape) < 1:
            continue
        layers += [layer, nn.Tanh()]
        y, channels = out.tanh().detach(), channels_after
    layers.append(nn.Flatten())
    width = y.flatten(1).shape[1]
    for _ in range(draw(st.integers(1, 2))):
        after = draw(st.integers(1, 4))
        layers += [nn.Linear(width, after, bias=draw(st.booleans())).double(), nn.Tanh()]
        width = after
    return nn.Sequential(*layers), x


@settings(max_examples=250, deadline=None)
@given(small_network(), st.integers(1, 6))
def test_random_networks_match_the_loop(case, chunk):
    module, x = case
    found, numbers = in_chunks(chunk, module, squared_sum, (x,))
    assert_equal(found, squares_by_loop(module, squared_sum, (x,)))
    each = [squares_by_loop(module, squared_sum, (x[k : k + 1],)) for k in range(len(x))]
    for name, value in squares(numbers).items():
        expected = sum(float(e[name].sum()) ** 2 for e in each)
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-18)


@settings(max_examples=25, deadline=None)
@given(small_network())
def test_random_networks_match_vmap(case):
    module, x = case
    found, _ = sa.squared_gradients(module, squared_sum, (x,))
    assert_equal(found, squares_by_vmap(module, squared_sum, (x,)))


def test_a_linear_layer_with_more_axes_matches_the_loop():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False)).double()
    x = torch.randn(5, 6, 2, 3, dtype=torch.float64)
    found, _ = in_chunks(2, module, squared_sum, (x,))
    assert_equal(found, squares_by_loop(module, squared_sum, (x,)))


@pytest.mark.parametrize("chunk", [33, 64, 1000])
def test_more_examples_than_fit_the_cache_at_once_match_the_loop(chunk):
    torch.manual_seed(0)
    body = [nn.Conv2d(2, 3, 2), nn.Tanh(), nn.ConvTranspose2d(3, 1, 2), nn.Flatten()]
    module = nn.Sequential(*body, nn.Linear(9, 2)).double()
    x, other = torch.randn(2, 70, 2, 3, 3, dtype=torch.float64)
    found, numbers = in_chunks(chunk, module, squared_sum, (x,))
    assert_equal(found, squares_by_loop(module, squared_sum, (x,)))
    alone = [sa.squared_gradients(module, squared_sum, (x[k : k + 1],))[1] for k in range(70)]
    one_by_one = [squares(each) for each in alone]
    for name, value in squares(numbers).items():
        assert value == pytest.approx(sum(each[name] for each in one_by_one), rel=1e-9)
    product, _ = in_chunks(chunk, module, squared_sum, (x,), (other,))
    assert_equal(product, squares_by_loop(module, squared_sum, (x,), (other,)))


class UsedTwice(nn.Module):
    """The same layer called twice, and another layer that shares its weight."""

    def __init__(self, layer: nn.Module, other: nn.Module):
        super().__init__()
        self.layer, self.other = layer, other
        self.other.weight = self.layer.weight

    def forward(self, x):
        return self.other(self.layer(self.layer(x).tanh()).tanh())


@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_a_parameter_used_more_than_once_is_added_before_squaring(kind):
    torch.manual_seed(0)
    make = {
        "linear": lambda: nn.Linear(4, 4),
        "conv": lambda: nn.Conv2d(2, 2, 3, padding=1),
        "transposed": lambda: nn.ConvTranspose2d(2, 2, 3, padding=1),
    }[kind]
    module = UsedTwice(make(), make()).double()
    x = torch.randn(5, 4) if kind == "linear" else torch.randn(5, 2, 4, 5)
    x = x.double()
    found, _ = in_chunks(2, module, squared_sum, (x,))
    right = squares_by_loop(module, squared_sum, (x,))
    assert_equal(found, right)
    once = UsedTwice(make(), make()).double()  # squaring each use alone would miss the cross terms
    assert set(found) == {name for name, _ in once.named_parameters()}


def test_a_layer_that_does_not_reach_the_loss_gets_exactly_zero():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.never = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            self.idle(x)
            return self.used(x)

    found, _ = sa.squared_gradients(Idle(), squared_sum, (torch.randn(4, 3),))
    assert float(found["used.weight"].min()) > 0
    assert all(not v.any() for name, v in found.items() if not name.startswith("used"))


# Networks of any kind


class Calls(nn.Module):
    """Layers, and a function of them that is the forward pass."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def tied(m, tokens):
    """The weight of the embedding reads the tokens and scores them."""
    return m.layer(m.embedding(tokens)).tanh() @ m.embedding.weight.T


def used_outside(m, x):
    return m.layer(x) @ m.layer.weight  # a use that no hook sees


def branching(m, x):
    return m.layer(x) if x.mean() > 0 else m.other(x).sin()


def branching_by_one_pixel(m, x):
    """It cannot even be called for several examples at once."""
    return m.layer(x) if x[:, 0, 0, 0] > 0 else m.other(x).sin()


def filled(m, x):
    out = torch.zeros(len(x), 3, dtype=x.dtype)
    out[:, 1] = m.layer(x)[:, 0]
    return out


def recurrent(m, x):
    return m.cell(x[:, 0, 0], m.cell(x[:, 0, 1]))


def lstm(m, x):
    return m.cell(x.flatten(1, 2))[0]


def flat(size=48):
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 3))


def network(name):
    """A network and a batch for it: images (7, 2, 4, 6), or tokens (7, 5)."""
    torch.manual_seed(0)
    images = torch.randn(7, 2, 4, 6, dtype=torch.float64)
    tokens = torch.randint(0, 9, (7, 5))
    kernel = {"kernel_size": 3, "padding": 1}
    make = {
        "group norm": lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), flat(32)
        ),
        "layer norm": lambda: nn.Sequential(flat(), nn.LayerNorm(3)),
        "batch norm": lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)),
        "one number": lambda: nn.Sequential(flat(), nn.PReLU()),
        "same": lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding="same"), nn.Tanh(), flat(72)),
        "circular": lambda: nn.Conv2d(2, 3, padding_mode="circular", **kernel),
        "convolutions in three dimensions": lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 2), nn.Tanh(), nn.ConvTranspose3d(2, 1, 2)
        ),
        "size of the output given": lambda: Calls(
            lambda m, x: m.layer(x, output_size=(8, 12)),
            layer=nn.ConvTranspose2d(2, 3, stride=2, **kernel),
        ),
        "by keyword": lambda: Calls(lambda m, x: m.layer(input=x), layer=nn.Linear(6, 3)),
        "used outside": lambda: Calls(used_outside, layer=nn.Linear(6, 3)),
        "weight made of others": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)),
        "changed in place": lambda: Calls(
            lambda m, x: m.layer(x.flatten(1)).mul_(3).exp(), layer=nn.Linear(48, 3)
        ),
        "examples folded": lambda: Calls(
            lambda m, x: m.layer(x.flatten(0, 2)).view(len(x), -1).sin(), layer=nn.Linear(6, 3)
        ),
        "the same for every example": lambda: Calls(
            lambda m, x: x.flatten(1)[:, :3] * m.layer(m.start),
            layer=nn.Linear(2, 3),
            start=nn.Parameter(torch.ones(1, 2)),
        ),
        "embedding": lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 2)),
        "tied": lambda: Calls(tied, embedding=nn.Embedding(9, 4), layer=nn.Linear(4, 4)),
        "gru cell": lambda: Calls(recurrent, cell=nn.GRUCell(6, 6)),
        "lstm": lambda: Calls(lstm, cell=nn.LSTM(6, 3, batch_first=True)),
        "branch": lambda: Calls(branching, layer=flat(), other=flat()),
        "branch by one pixel": lambda: Calls(branching_by_one_pixel, layer=flat(), other=flat()),
        "filled in place": lambda: Calls(filled, layer=flat()),
    }[name]
    return make().double(), tokens if name in ("embedding", "tied") else images


LEFT_OVER = [
    "group norm",
    "layer norm",
    "batch norm",
    "one number",
    "same",
    "circular",
    "convolutions in three dimensions",
    "size of the output given",
    "by keyword",
    "used outside",
    "weight made of others",
    "changed in place",
    "examples folded",
    "the same for every example",
    "embedding",
    "tied",
]
ONE_BY_ONE = ["gru cell", "lstm", "branch", "branch by one pixel", "filled in place"]


@pytest.mark.parametrize("name", LEFT_OVER + ONE_BY_ONE)
def test_networks_of_any_kind_match_the_loop(name):
    module, x = network(name)
    found, each = in_chunks(3, module, squared_sum, (x,))  # a warning would be an error here
    right = squares_by_loop(module.eval(), squared_sum, (x,))
    assert_equal(found, right)
    assert all(v.any() for v in right.values())  # so that no parameter's Fisher is zero
    for key, value in right.items():
        assert float(each[key].sum()) == pytest.approx(float(value.sum()), rel=1e-9)
    twins = (x.flip(0),)
    product, _ = in_chunks(3, module, squared_sum, (x,), twins)
    assert_equal(product, squares_by_loop(module, squared_sum, (x,), twins))


@pytest.mark.parametrize("name", LEFT_OVER + ONE_BY_ONE)
def test_single_examples_are_passed_only_where_nothing_else_is_right(name):
    module, x = network(name)
    sizes = []

    def losses(module, x):
        sizes.append(len(x))
        return squared_sum(module, x)

    sa.squared_gradients(module, losses, (x.repeat(20, *[1] * (x.ndim - 1)),))
    passes_for_all = sizes.count(1) > 140
    assert passes_for_all == (name in ONE_BY_ONE)


def test_vmap_is_for_the_parameters_that_are_left_over():
    """The MLP and the convolutional network have none; of another, a norm's alone."""
    asked = []
    by_vmap = _Squares._gradients_by_vmap

    def spy(self, names, examples):
        asked.append(names)
        return by_vmap(self, names, examples)

    with mock.patch.object(_Squares, "_gradients_by_vmap", spy):
        for arch in ("mlp", "conv"):
            model, inputs = small_case(arch, n=3)
            sa.squared_gradients(model, negative_elbo, inputs)
        assert not asked
        module, x = network("group norm")
        sa.squared_gradients(module, squared_sum, (x,))
    assert asked
    assert all(names == ["1.weight", "1.bias"] for names in asked)


def test_activations_that_work_in_place_match_the_loop():
    torch.manual_seed(0)
    body = [nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3), nn.ELU(inplace=True)]
    module = nn.Sequential(*body).double()

    def losses(module, x):
        return (module(x) + 1).square().sum(1)

    x = torch.randn(6, 4, dtype=torch.float64)
    found, _ = sa.squared_gradients(module, losses, (x,))
    assert_equal(found, squares_by_loop(module, losses, (x,)))
    assert module[1].inplace


def centred(module, x):
    return (module(x) - module(x).mean(0)).flatten(1).square().sum(1)


@pytest.mark.parametrize(
    ("module", "losses"),
    [
        (nn.Linear(3, 2), centred),
        (nn.BatchNorm2d(3, track_running_stats=False), squared_sum),
    ],
)
def test_examples_that_depend_on_each_other_are_refused(module, losses):
    x = torch.randn((4, 3, 3, 3), generator=sa.seeded(0))
    with pytest.raises(TypeError, match="must not depend on other examples"):
        sa.squared_gradients(module, losses, (x,))


def test_bad_input_is_refused():
    module = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="at least one image"):
        sa.squared_gradients(module, squared_sum, (torch.zeros(0, 3),))
    with torch.no_grad():
        module[0].bias[1] = float("nan")
    with pytest.raises(ValueError, match=r"0\.bias holds NaN"):
        sa.squared_gradients(module, squared_sum, (torch.zeros(2, 3),))


# The module is left as it was


@pytest.mark.parametrize("fails", [False, True])
def test_the_module_is_left_as_it_was(fails):
    module = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    module[0].weight.grad = torch.full((2, 3), 7.0)
    module[0].bias.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    torch.manual_seed(5)
    expected_draw = torch.rand(3)
    torch.manual_seed(5)
    calls = 0

    def losses(module, x):
        nonlocal calls
        calls += 1
        if fails and calls > 8:  # the first ones are the comparison's, one for each of six follows
            raise RuntimeError("in the middle")
        return squared_sum(module, x)

    x = torch.randn(6, 3, generator=sa.seeded(0))
    if fails:
        with pytest.raises(RuntimeError, match="in the middle"):
            in_chunks(1, module, losses, (x,))
    else:
        in_chunks(1, module, losses, (x,))
    assert module.training
    assert module[1].training
    assert not any(m._forward_hooks or m._backward_hooks for m in module.modules())
    assert torch.equal(module[0].weight.grad, torch.full((2, 3), 7.0))
    assert module[0].bias.grad is None
    assert not module[0].bias.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert torch.equal(torch.rand(3), expected_draw)


def test_gradients_switched_off_by_the_caller_make_no_difference():
    model, inputs = small_case("mlp", n=3)
    right, _ = sa.squared_gradients(model, negative_elbo, inputs)
    with torch.no_grad():
        found, _ = sa.squared_gradients(model, negative_elbo, inputs)
    assert all(torch.equal(found[name], right[name]) for name in right)


def test_a_module_is_compared_with_the_loop_once_in_a_fisher_and_else_each_time():
    model, inputs = small_case("mlp", n=3)
    data = some_data(12, torch.float64)
    first_has_one = sa.LabelledImages(data.images[1:], data.labels[1:])
    config = sa.FisherConfig(n_fisher_samples=1000, draws=2)
    spied = {"autospec": True, "side_effect": _Squares._choose}
    with mock.patch.object(_Squares, "_choose", **spied) as comparison:
        sa.class_fishers(model, data, config)
        assert comparison.call_count == 1
        sa.class_fishers(model, first_has_one, config)  # again as soon as there are two
        assert comparison.call_count == 3
        sa.squared_gradients(model, negative_elbo, inputs)
        sa.squared_gradients(model, negative_elbo, inputs)
        assert comparison.call_count == 5


# The estimators


def test_the_standard_error_is_that_of_a_mean():
    model, inputs = small_case("mlp")
    total, each = in_chunks(2, model, negative_elbo, inputs)
    n = len(inputs[0])
    square = {name: float(v.square().mean()) for name, v in each.items()}
    fisher = sa.Fisher({name: v / n for name, v in total.items()}, n, square, "square")
    for name, (value, error) in fisher.sums().items():
        assert value == pytest.approx(float(each[name].mean()), rel=1e-9)
        assert error == pytest.approx(float(each[name].std()) / n**0.5, rel=1e-9)


@pytest.mark.parametrize("arch", ["mlp", "conv", "own"])
def test_the_estimate_of_all_images_is_the_loop(arch):
    """With more samples asked for than there are, every image is used once, in any order."""
    model = small_case(arch)[0]
    data = some_data(20, torch.float64)
    config = sa.FisherConfig(n_fisher_samples=1000, seed=3)
    with mock.patch.object(_Squares, "_add_alone") as one_by_one:
        fisher = sa.diagonal_fisher(model, data, config, exclude=3)
    assert not one_by_one.called
    assert fisher.n == 18

    right: Squares = {}
    square = dict.fromkeys(fisher.square_mean, 0.0)  # of the sums over a parameter's entries
    for label in (c for c in range(10) if c != 3):  # the documented order of draws
        generator = sa.seeded(config.seed * 1009 + label)
        part = data.only(label).images
        part = part[torch.randperm(len(part), generator=generator)]
        noise = torch.randn((len(part), 1, 3), generator=generator, dtype=torch.float64)[:, 0]
        labels = torch.full((len(part),), label)
        for one in zip(part.split(1), labels.split(1), noise.split(1), strict=True):
            for name, v in squares_by_loop(model, negative_elbo, one).items():
                right[name] = right.get(name, 0) + v / 18
                square[name] += float(v.sum()) ** 2 / 18
    assert_equal(fisher.diagonal, right)
    assert fisher.square_mean == pytest.approx(square, rel=1e-9)
    assert all(v.any() for v in fisher.diagonal.values())


def test_per_class_estimates_add_up_to_the_whole():
    model, data, config = small_case("mlp")[0].float(), some_data(), sa.FisherConfig(30)
    by_class = sa.class_fishers(model, data, config)
    for left_out in [(), (3,), (0, 7)]:
        whole = sa.diagonal_fisher(model, data, config, exclude=left_out)
        added = by_class.without(left_out)
        assert added.n == whole.n == 3 * (10 - len(left_out))
        for name, right in whole.diagonal.items():
            torch.testing.assert_close(added.diagonal[name], right)
        assert added.square_mean == pytest.approx(whole.square_mean)


def test_an_excluded_class_leaves_its_label_columns_at_exactly_zero():
    model, data = small_case("mlp")[0].float(), some_data()
    fisher = sa.diagonal_fisher(model, data, sa.FisherConfig(40), exclude=3)
    for name, first in (("encoder.0.weight", 784), ("decoder.0.weight", 3)):
        columns = fisher.diagonal[name][:, first : first + 10].sum(0)
        assert columns[3] == 0
        assert all(columns[c] > 0 for c in range(10) if c != 3)


def test_adding_weights_by_the_number_of_images():
    a = sa.Fisher({"w": torch.tensor([1.0, 3.0])}, 10, {"w": 20.0}, "square")
    b = sa.Fisher({"w": torch.tensor([5.0, 7.0])}, 30, {"w": 200.0}, "square")
    both = a + b
    assert both.n == 40
    assert both.diagonal["w"].tolist() == [4.0, 6.0]
    assert both.square_mean["w"] == pytest.approx(155.0)
    assert (a + sa.Fisher(b.diagonal, 30, b.square_mean, "other")).estimator == "mixed"
    with pytest.raises(ValueError, match=r"w is \(2,\) here, \(3,\) there"):
        a + sa.Fisher({"w": torch.zeros(3)}, 1, {"w": 0.0}, "square")


@pytest.mark.parametrize("source", ["model_mean", "model_sample"])
def test_model_sources_need_no_data_and_repeat(source):
    model = small_case("mlp")[0].float()
    config = sa.FisherConfig(n_fisher_samples=20, source=source)
    first, second = (sa.diagonal_fisher(model, None, config) for _ in range(2))
    assert all(torch.equal(first.diagonal[k], second.diagonal[k]) for k in first.diagonal)
    other = sa.diagonal_fisher(model, None, sa.FisherConfig(20, source=source, seed=1))
    assert not torch.equal(first.diagonal["decoder.0.weight"], other.diagonal["decoder.0.weight"])


@pytest.mark.parametrize("estimator", ["square", "product"])
def test_two_draws_of_z_are_the_mean_of_their_loops(estimator):
    model, data = small_case("mlp")[0], some_data(20, torch.float64)
    config = sa.FisherConfig(n_fisher_samples=1000, draws=2, estimator=estimator)
    fisher = sa.diagonal_fisher(model, data, config, exclude=range(1, 10))

    generator = sa.seeded(config.seed * 1009)
    part = data.only(0).images
    part = part[torch.randperm(2, generator=generator)]
    repeats = {"square": 2, "product": 4}[estimator]
    noise = torch.randn((2, repeats, 3), generator=generator, dtype=torch.float64)
    labels = torch.zeros(2, dtype=torch.long)
    right: Squares = {}
    for k in range(2):
        twins = (part, labels, noise[:, 2 + k]) if estimator == "product" else None
        found = squares_by_loop(model, negative_elbo, (part, labels, noise[:, k]), twins)
        for name, v in found.items():
            right[name] = right.get(name, 0) + v / 4
    assert_equal(fisher.diagonal, right)
    for name, value in fisher.square_mean.items():
        assert value >= float(fisher.diagonal[name].sum()) ** 2 * (1 - 1e-9)


@pytest.mark.parametrize("source", ["model_mean", "model_sample"])
def test_the_model_draws_its_images_from_the_standard_prior(source):
    """What it draws for class 3 with the documented generator, given as data, has the same F."""
    model = small_case("mlp")[0]
    model.set_class_prior(3, 5 + torch.randn(9, 3, dtype=torch.float64))  # not to be used
    config = sa.FisherConfig(n_fisher_samples=60, source=source)
    others = [c for c in range(10) if c != 3]
    fisher = sa.diagonal_fisher(model, None, config, exclude=others)

    generator, labels = sa.seeded(config.seed * 1009 + 3), torch.full((6,), 3)
    images = model.sample(labels, "standard", generator)
    if source == "model_sample":
        images = torch.bernoulli(images, generator=generator)
    noise = torch.randn((6, 1, 3), generator=generator, dtype=torch.float64)[:, 0]
    right = squares_by_loop(model, negative_elbo, (images, labels, noise))
    assert_equal(fisher.diagonal, {name: v / 6 for name, v in right.items()})


@pytest.mark.parametrize("estimator", ["square", "product", "decoder"])
def test_every_estimator_repeats(estimator):
    model, data = small_case("mlp")[0].float(), some_data()
    config = sa.FisherConfig(20, estimator=estimator)
    first, second = (sa.diagonal_fisher(model, data, config) for _ in range(2))
    assert all(torch.equal(first.diagonal[k], second.diagonal[k]) for k in first.diagonal)


def test_more_draws_of_z_narrow_the_spread_and_keep_the_mean():
    model, data = small_case("mlp")[0].float(), some_data(60)
    one, many = (
        sa.diagonal_fisher(model, data, sa.FisherConfig(60, draws=d)).sums() for d in (1, 10)
    )
    name = "encoder.4.bias"  # the part of the gradient that the noise of z touches most
    assert many[name][1] < one[name][1]
    assert many[name][0] == pytest.approx(one[name][0], abs=6 * one[name][1])


def test_the_product_estimates_the_square_of_the_mean_over_z():
    """Oracle: one image, the gradient averaged over very many draws of z, then squared."""
    model = small_case("mlp")[0]
    data = some_data(10, torch.float64)
    image, label = data.images[:1], data.labels[:1]
    m = 1000
    noise = torch.randn(m, 3, dtype=torch.float64, generator=sa.seeded(0))
    loss = negative_elbo(model, image.expand(m, -1, -1, -1), label.expand(m), noise).mean()
    parameters = dict(model.named_parameters())
    mean = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    images = image.expand(m, -1, -1, -1)
    other = torch.randn(m, 3, dtype=torch.float64, generator=sa.seeded(1))
    inputs = (images, label.expand(m), noise)
    product, _ = sa.squared_gradients(
        model, negative_elbo, inputs, (images, label.expand(m), other)
    )
    square, _ = sa.squared_gradients(model, negative_elbo, inputs)
    name = "encoder.4.bias"
    wanted = float(mean[name].square().sum())
    assert float(product[name].sum()) / m == pytest.approx(wanted, rel=0.1)
    assert float(square[name].sum()) / m > 1.2 * wanted  # E[g^2] is larger: the variance over z


def test_the_decoder_estimate_is_the_closed_form_in_the_mean():
    """For a Bernoulli decoder F = E_z sum_j p_j (1 - p_j) (d logit_j / d theta)^2; at the last
    layer d logit_j / d bias_j = 1 and d logit_j / d W_jk = h_k, whatever x was drawn."""
    model = small_case("mlp")[0]
    config = sa.FisherConfig(n_fisher_samples=1000, estimator="decoder")
    fisher = sa.diagonal_fisher(model, None, config)
    labels = torch.arange(10).repeat_interleave(100)
    z = torch.randn(1000, 3, generator=sa.seeded(8), dtype=torch.float64)
    with torch.no_grad():
        h = model.decoder[:-1](torch.cat([z, model.label_vectors(labels)], 1))
        p = model.decoder[-1](h).sigmoid()
    spread = p * (1 - p)
    weight, bias = (spread.T @ h.square()) / 1000, spread.mean(0)
    torch.testing.assert_close(fisher.diagonal["decoder.4.bias"], bias, rtol=0.02, atol=0)
    found = fisher.diagonal["decoder.4.weight"]
    assert float(found.sum()) == pytest.approx(float(weight.sum()), rel=0.02)
    assert not any(v.any() for k, v in fisher.diagonal.items() if k.startswith("encoder"))


def test_bad_data_is_refused():
    model, data, config = small_case("mlp")[0].float(), some_data(), sa.FisherConfig(20)
    with pytest.raises(ValueError, match="needs data"):
        sa.diagonal_fisher(model, None, config)
    with pytest.raises(ValueError, match=r"no image left .* \(3,\)"):
        sa.diagonal_fisher(model, data.only(3), config, exclude=3)
    with pytest.raises(ValueError, match="no image left"):
        sa.diagonal_fisher(model, data.only(()), config)
    with pytest.raises(ValueError, match="class 3 has no image"):
        sa.class_fishers(model, data.without(3), config)
    with pytest.raises(ValueError, match="class 10 is not a class"):
        sa.diagonal_fisher(model, data, config, exclude=10)
    with pytest.raises(ValueError, match="data is on cpu, the model on meta"):
        sa.diagonal_fisher(copy.deepcopy(model).to("meta"), data, config)
    four = sa.LabelledImages(data.images[:4], torch.arange(4), class_names=tuple("abcd"))
    with pytest.raises(ValueError, match="10 classes, not 4"):
        sa.diagonal_fisher(model, four, config, exclude=range(4, 10))
    with torch.no_grad():
        model.decoder[2].weight[1, 1] = float("inf")
    with pytest.raises(ValueError, match=r"decoder\.2\.weight"):
        sa.diagonal_fisher(model, data, config)


def test_forget_names_the_first_parameter_that_differs():
    model = small_case("mlp")[0].float()
    other = sa.diagonal_fisher(sa.CVAE("mlp", 5), None, sa.FisherConfig(10, source="model_mean"))
    with pytest.raises(ValueError, match=r"encoder\.4\.weight is \(6, 256\) here, \(10, 256\)"):
        sa.forget(model, other, 3)


def test_a_parameter_that_the_model_has_not_is_named():
    model = small_case("mlp")[0].float()
    fisher = sa.diagonal_fisher(model, None, sa.FisherConfig(10, source="model_mean"))
    fisher.diagonal["encoder.9.weight"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"it has encoder\.9\.weight, which is unknown here"):
        sa.forget(model, fisher, 3)


def test_a_fisher_survives_saving(tmp_path):
    model = small_case("mlp")[0].float()
    config = sa.FisherConfig(20, source="model_mean")
    fishers = sa.class_fishers(model, None, config)
    path = tmp_path / "fisher.pt"
    save(path, fishers.to_state(), {})
    state = load(path)[0]
    found = sa.ClassFishers.from_state(state)
    assert [set(each) for each in state["by_class"]] == [set(vars(found.by_class[0]))] * 10
    for mine, theirs in zip(fishers.by_class, found.by_class, strict=True):
        assert (mine.n, mine.estimator, mine.square_mean) == (
            theirs.n,
            theirs.estimator,
            theirs.square_mean,
        )
        assert all(torch.equal(mine.diagonal[k], theirs.diagonal[k]) for k in mine.diagonal)


def test_an_estimate_cannot_be_changed():
    one = sa.Fisher({"w": torch.ones(2)}, 1, {"w": 4.0}, "square")
    for value, name in ((one, "n"), (sa.ClassFishers((one, one)), "by_class")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, 5)
