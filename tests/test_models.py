import pytest
import torch

import sahelpers as sa


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_shapes_and_ranges(arch, digits):
    model = sa.CVAE(arch, latent_dim=4).eval()
    mean, log_var = model.encode(digits.images, digits.labels)
    assert mean.shape == log_var.shape == (40, 4)
    images = model.decode(mean, digits.labels)
    assert images.shape == (40, 1, 28, 28)
    assert 0 <= images.min() <= images.max() <= 1
    logits = model.decode_logits(mean, digits.labels)
    assert torch.allclose(images, torch.sigmoid(logits))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_soft_label_on_a_corner_is_the_hard_label(arch, digits):
    model = sa.CVAE(arch, latent_dim=4).eval()
    soft = torch.eye(10)[digits.labels]
    for a, b in zip(
        model.encode(digits.images, digits.labels), model.encode(digits.images, soft), strict=True
    ):
        assert torch.equal(a, b)
    z = torch.randn(40, 4)
    assert torch.equal(model.decode(z, digits.labels), model.decode(z, soft))


def test_a_label_vector_takes_a_gradient(tiny):
    soft = torch.full((2, 10), 0.1, requires_grad=True)
    tiny.decode(torch.zeros(2, 3), soft).sum().backward()
    assert soft.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "labels",
    [
        torch.zeros(4, 9),
        torch.zeros(4),
        torch.zeros(4, 10, dtype=torch.long),
        torch.zeros(1, 4, 10),
    ],
)
def test_labels_of_another_kind_are_refused(tiny, labels):
    with pytest.raises(ValueError, match=r"labels of shape .* \(B, 10\) float"):
        tiny.decode(torch.zeros(4, 3), labels)


def test_wrong_shapes_are_named(tiny):
    with pytest.raises(ValueError, match=r"\(2, 28, 28\) must be \(B, 1, 28, 28\)"):
        tiny.encode(torch.zeros(2, 28, 28), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"z of shape \(2, 4\) must be \(B, 3\)"):
        tiny.decode(torch.zeros(2, 4), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="arch='gan'"):
        sa.CVAE("gan")
    with pytest.raises(ValueError, match="role='boss'"):
        sa.Judge("boss")
    with pytest.raises(ValueError, match="prior='flat'"):
        tiny.sample(torch.tensor([1]), prior="flat")


def test_sampling_is_reproducible_and_leaves_the_global_generator_alone(tiny):
    labels = torch.arange(10)
    state = torch.get_rng_state()
    first, second = (tiny.sample(labels, generator=sa.seeded(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, tiny.sample(labels, generator=sa.seeded(4)))


def test_class_prior_has_the_moments_of_its_latents(tiny):
    latents = torch.randn(500, 3, generator=sa.seeded(0)) @ torch.tensor(
        [[2.0, 0.5, 0.0], [0.0, 0.3, 0.1], [0.0, 0.0, 1.0]]
    ) + torch.tensor([1.0, -2.0, 0.5])
    tiny.set_class_prior(4, latents)
    labels = torch.full((200_000,), 4)
    drawn = tiny.draw_latents(labels, generator=sa.seeded(1))
    assert torch.allclose(drawn.mean(0), latents.mean(0), atol=0.03)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(latents.T), atol=0.06)
    noise = tiny.draw_latents(labels, "standard", sa.seeded(1))
    assert torch.allclose(noise.std(0), torch.ones(3), atol=0.02)
    tiny.set_class_prior(4)
    assert torch.equal(tiny.draw_latents(labels, generator=sa.seeded(1)), noise)


def test_class_prior_needs_enough_latents(tiny):
    with pytest.raises(ValueError, match="3 latents are too few for 3 dims"):
        tiny.set_class_prior(0, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="class 12"):
        tiny.set_class_prior(12)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_state_round_trip(arch):
    model = sa.CVAE(arch, latent_dim=5).eval()
    model.set_class_prior(2, torch.randn(50, 5))
    twin = sa.CVAE.from_state(model.to_state())
    labels = torch.arange(10)
    one, other = (m.sample(labels, generator=sa.seeded(0)) for m in (model, twin))
    assert torch.equal(one, other)
    assert not twin.training


def test_labels_are_interpolated_in_a_straight_line(four):
    z = torch.randn((2, 3), generator=sa.seeded(0))
    walk = sa.interpolate_labels(four, z, 1, 3, steps=5)
    torch.testing.assert_close(walk[0], four.decode(z, torch.tensor([1, 1])))
    torch.testing.assert_close(walk[-1], four.decode(z, torch.tensor([3, 3])))
    quarter = torch.tensor([[0.0, 0.75, 0.0, 0.25]]).expand(2, -1)
    torch.testing.assert_close(walk[1], four.decode(z, quarter))
    with pytest.raises(ValueError, match="steps=1"):
        sa.interpolate_labels(four, z, 1, 3, steps=1)


def test_images_are_reconstructed_under_each_label(four, four_images):
    found = sa.reconstruct(four, four_images)
    assert found.shape == (6, 4, 1, 28, 28)
    for b in range(6):
        for c in range(4):
            y = torch.tensor([c])
            one = four.decode(four.encode(four_images[b][None], y)[0], y)[0]
            torch.testing.assert_close(found[b, c], one)


# Where a label enters


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_the_names_of_the_weights_are_those_of_earlier_files(arch):
    layers = {"mlp": ["0", "2", "4"], "conv": ["0", "2", "5"]}[arch]
    decoder = {"mlp": ["0", "2", "4"], "conv": ["0", "3", "5"]}[arch]
    names = [f"encoder.{k}.{kind}" for k in layers for kind in ("weight", "bias")]
    names += [f"decoder.{k}.{kind}" for k in decoder for kind in ("weight", "bias")]
    assert [name for name, _ in sa.CVAE(arch).named_parameters()] == names


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_the_networks_are_plain_layers_after_the_label(arch, digits):
    """By hand: the label's entries, or planes, behind the other inputs of the first layer."""
    model = sa.CVAE(arch, latent_dim=4).eval()
    y, z = torch.eye(10)[digits.labels], torch.randn((40, 4), generator=sa.seeded(0))
    found = torch.cat(model.encode(digits.images, digits.labels), 1)
    inputs = torch.cat([digits.images.flatten(1), y], 1)
    if arch == "conv":
        inputs = torch.cat([digits.images, y[:, :, None, None].expand(-1, -1, 28, 28)], 1)
    assert torch.equal(found, model.encoder[1:](model.encoder[0](inputs)))
    logits = model.decode_logits(z, digits.labels)
    by_hand = model.decoder[1:](model.decoder[0](torch.cat([z, y], 1)))
    assert torch.equal(logits, by_hand.view_as(logits))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_labels_column_does_what_the_label_does(arch, digits):
    model = sa.CVAE(arch, latent_dim=4).eval()
    z = torch.randn((40, 4), generator=sa.seeded(0))
    columns = model.label_columns()
    assert columns.shape == (10, model.decoder[0].out_features)
    assert torch.equal(columns, model.decoder[0].weight[:, 4:].T)
    torch.testing.assert_close(
        model.decode_columns(z, columns[digits.labels]), model.decode_logits(z, digits.labels)
    )


def test_a_mask_is_no_class_number():
    with pytest.raises(ValueError, match=r"type torch.bool: give class numbers"):
        sa.CVAE().decode(torch.zeros(2, 20), torch.tensor([True, False]))


def test_columns_of_ones_own_networks_are_label_vectors():
    model = own()
    z, y = torch.randn((3, 2), generator=sa.seeded(0)), torch.tensor([0, 1, 2])
    assert torch.equal(model.label_columns(), torch.eye(3))
    assert torch.equal(model.decode_columns(z, torch.eye(3)), model.decode_logits(z, y))


class Half(torch.nn.Module):
    """Two layers; the first also reads y behind `before` of the values and in front of the rest."""

    before = 0

    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = torch.nn.Linear(inputs + 3, 16)
        self.last = torch.nn.Linear(16, outputs)

    def forward(self, values, y):
        values = values.flatten(1)
        joined = [values[:, : self.before], y, values[:, self.before :]]
        return self.last(self.first(torch.cat(joined, 1)).relu())

    def label_weights(self):
        return self.first.weight, self.before


def own(half=Half, **changes):
    """A model of such halves, three classes and two latents; the changes are the decoder's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, decoder = Half(64, 4), half(2, 64)
        for name, value in changes.items():
            setattr(decoder, name, value)
        return sa.CVAE("mlp", 2, 3, (1, 8, 8), encoder=encoder, decoder=decoder)


class Copied(Half):
    def label_weights(self):
        return self.first.weight.clone(), 0


class Part(Half):
    def label_weights(self):
        return self.first.weight[:, :3], 0


class Fresh(Half):
    def label_weights(self):
        return torch.nn.Parameter(self.first.weight.detach()), 0


class Bias(Half):
    def label_weights(self):
        return self.first.bias, 0


class Mute(Half):
    def label_weights(self):
        return None


class Failing(Half):
    def label_weights(self):
        return self.gate.weight, 0


class Other(Half):
    def label_weights(self):
        return self.last.weight, 3


class Foreign(Half):
    """It names its weight by a function that a copy of the network does not copy."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.label_weights = lambda: (self.first.weight, 0)


@pytest.mark.parametrize(
    ("half", "message"),
    [
        (
            Copied,
            r"decoder\.label_weights\(\) returns a weight that is no parameter of the decoder",
        ),
        (Part, "is no parameter of the decoder: return the parameter itself"),
        (Fresh, "is no parameter of the decoder"),
        (Foreign, "is no parameter of the decoder"),
        (Bias, r"says first=0: a weight of shape \(16,\) has no 3 inputs"),
        (Mute, r"decoder\.label_weights\(\) does not return \(weight, first\)"),
        (Failing, r"does not return \(weight, first\): 'Failing' object has no attribute 'gate'"),
        (Other, "says first=3, but a change of the weight at 3"),
    ],
)
def test_weights_that_are_not_the_labels_are_refused(half, message):
    with pytest.raises(ValueError, match=message):
        own(half)


@pytest.mark.parametrize("first", [-1, 3, 2.0, "0", None, True])
def test_a_first_that_is_no_place_in_the_weight_is_refused(first):
    class Wrong(Half):
        def label_weights(self):
            return self.first.weight, first

    with pytest.raises(ValueError, match=r"says first=.*has no 3 inputs from there on"):
        own(Wrong)


@pytest.mark.parametrize(("before", "first"), [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)])
def test_a_first_beside_the_label_is_refused(before, first):
    class Beside(Half):
        def label_weights(self):
            return self.first.weight, first

    with pytest.raises(ValueError, match=rf"first={first}, but a change of the weight at \d"):
        own(Beside, before=before)


@pytest.mark.parametrize("before", [0, 1, 2])
def test_the_right_place_is_taken_wherever_it_is(before):
    model = own(before=before)
    assert model.says_label
    assert model.label_weights()[1][1] == before
    hidden = sa.reset_label(model, 1)
    z, y = torch.randn((5, 2), generator=sa.seeded(0)), torch.full((5,), 1)
    assert not torch.equal(hidden.decode(z, y), model.decode(z, y))
    assert torch.equal(hidden.decode(z, y + 1), model.decode(z, y + 1))


class Late(Half):
    """It begins with zeros at its end, normalises what the label adds, and draws random numbers."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        torch.nn.init.zeros_(self.last.weight)
        torch.nn.init.zeros_(self.last.bias)
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, values, y):
        values = self.norm(self.first(torch.cat([y, values], 1)))
        return self.last(values + 0.1 * torch.randn_like(values))


def test_what_begins_at_zero_or_draws_at_random_is_no_wrong_place():
    state = torch.get_rng_state()
    model = own(Late)
    assert model.says_label
    assert not model.decoder.last.weight.any()  # tried out on a copy
    assert torch.equal(state, torch.get_rng_state())


def test_what_one_network_says_is_tried_out_even_if_the_other_says_nothing():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(5, 64)

        def forward(self, z, y):
            return self.layer(torch.cat([z, y], 1))

    given = {"latent_dim": 2, "num_classes": 3, "image_shape": (1, 8, 8)}
    model = sa.CVAE(**given, encoder=Half(64, 4), decoder=Plain())
    assert not model.says_label
    with pytest.raises(ValueError, match=r"no method label_weights\(\)"):
        model.label_weights()

    class Wrong(Half):
        def label_weights(self):
            return self.first.weight, 1

    with pytest.raises(ValueError, match=r"encoder\.label_weights\(\) says first=1, but"):
        sa.CVAE(**given, encoder=Wrong(64, 4), decoder=Plain())


class Changing(Half):
    """What it says can be changed after the model was made."""

    says = None

    def label_weights(self):
        return self.says or super().label_weights()


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (lambda half: (half.first.weight.detach().clone(), 0), "is no parameter of the decoder"),
        (lambda half: (half.first.weight.data, 0), "is no parameter of the decoder"),
        (lambda half: (half.first.weight, 1), "says first=1, but a change of the weight at"),
        (lambda half: (half.first.weight, 99), "says first=99: a weight of shape"),
        (lambda half: 7, r"does not return \(weight, first\)"),
    ],
)
@pytest.mark.parametrize("replaced", [False, True])
def test_what_a_network_says_later_is_tried_out_before_it_is_used(says, message, replaced):
    model = own(Changing)
    if replaced:
        model.decoder = Changing(2, 64)
    model.decoder.says = says(model.decoder)
    with pytest.raises(ValueError, match=message):
        sa.reset_label(model, 1)


def test_a_converted_model_still_says_where_its_label_enters():
    model = own().double()
    assert model.label_weights()[1][0] is model.decoder.first.weight


@pytest.mark.parametrize("kind", [torch.float16, torch.float64])
def test_networks_of_another_type_are_refused_with_their_type(kind):
    halves = {"encoder": Half(64, 4), "decoder": Half(2, 64).to(kind)}
    with pytest.raises(ValueError, match=f"of torch.float32, with weights of {kind}: convert"):
        sa.CVAE("mlp", 2, 3, (1, 8, 8), **halves)


class InPlace(Half):
    """A network that scales its images where they lie."""

    def forward(self, values, y):
        return super().forward(values.mul_(2).sub_(1), y)


def test_a_network_that_changes_its_inputs_in_place_is_refused():
    for halves in ((InPlace(64, 4), Half(2, 64)), (Half(64, 4), InPlace(2, 64))):
        with pytest.raises(ValueError, match=r"coder changes its inputs in place.*write x = x"):
            sa.CVAE("mlp", 2, 3, (1, 8, 8), encoder=halves[0], decoder=halves[1])


class Sigmoid(Half):
    def forward(self, values, y):
        return super().forward(values, y).sigmoid()


def test_a_decoder_that_ends_in_a_sigmoid_is_warned_of():
    with pytest.warns(UserWarning, match="outputs of the decoder lie between 0 and 1.*logits"):
        sa.CVAE("mlp", 2, 3, (1, 8, 8), encoder=Half(64, 4), decoder=Sigmoid(2, 64))


def test_networks_on_the_device_meta_are_refused():
    with torch.device("meta"):
        halves = {"encoder": Half(64, 4), "decoder": Half(2, 64)}
    with pytest.raises(ValueError, match="encoder is on the device meta, which holds no numbers"):
        sa.CVAE("mlp", 2, 3, (1, 8, 8), **halves)


def test_one_class_alone_gets_a_gaussian(tiny):
    for wrong in ((1, 2), [1, 2]):
        with pytest.raises(ValueError, match="class"):
            tiny.set_class_prior(wrong)
