"""Probes: a batch of restarts against one restart at a time, and against a loop written out."""

import copy

import pytest
import torch
import torch.nn.functional as F

import sahelpers
import sahelpers as sa
from sahelpers.attacks.latent import SEARCHES, guided_attack, reachable

torch.set_num_threads(1)  # tiny tensors: threads that wait for each other cost far more
CLASS, LATENT = 2, 3
PROBES = ("prototype", "blind", *(f"guided {over}" for over in SEARCHES))


def tiny_model(seed=0, dtype=torch.float64):
    """An untrained model whose images are not all gray, so that the losses have slopes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = sa.CVAE(latent_dim=LATENT, num_classes=4)
        torch.nn.init.normal_(model.decoder[-1].weight, std=0.5)
    return model.to(dtype).eval()


def tiny_judge(role, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return sa.Judge(role, num_classes=4).eval()


def probe(kind, model, config, **more):
    if kind == "prototype":
        return sa.invert_prototypes(model, CLASS, config, baseline=tiny_model(1), **more)
    if kind == "blind":
        return sa.invert_blind(model, CLASS, config, **more)
    more["over"] = kind.split()[1]
    return guided_attack(model, CLASS, config, guide=tiny_judge("guide"), **more)


@pytest.mark.parametrize("kind", PROBES)
def test_a_batch_equals_one_restart_at_a_time(kind):
    model, config = tiny_model(), sa.ProbeConfig(steps=20)
    start = torch.randn((5, LATENT), generator=sa.seeded(3), dtype=torch.float64)
    together = probe(kind, model, config, start=start)
    alone = [probe(kind, model, config, start=z[None]) for z in start]
    order = torch.cat([one.loss for one in alone]).argsort()
    for name in ("images", "z", "label", "loss"):
        apart = torch.cat([getattr(one, name) for one in alone])[order]
        torch.testing.assert_close(getattr(together, name), apart, rtol=0, atol=1e-8)


def test_the_prototype_probe_written_out_by_hand():
    """Adam's update rule by hand for one restart, its gradients by torch.func."""
    model, config = tiny_model(), sa.ProbeConfig.prototype(n_restarts=1, steps=15, seed=5)
    generator = sa.seeded(5)
    labels = torch.full((512,), CLASS)
    z512 = torch.randn((512, LATENT), generator=generator, dtype=torch.float64)
    samples = tiny_model(1).decode(z512, labels).detach()
    targets = samples[(samples - 0.5).square().mean((1, 2, 3)).argsort(descending=True)[:8]]

    def loss(z, logits):
        image = model.decode(z[None], logits.softmax(0)[None])[0, 0]
        tv = image.diff(dim=0).abs().mean() + image.diff(dim=1).abs().mean()
        errors = (image - targets[:, 0]).square().mean((1, 2))
        return errors.min() + 0.02 * tv + 1e-3 * z.square().mean()

    z = torch.randn((1, LATENT), generator=generator, dtype=torch.float64)[0]
    logits = torch.tensor([0.0, 0.0, 3.0, 0.0], dtype=torch.float64)
    state = [(v, torch.zeros_like(v), torch.zeros_like(v)) for v in (z, logits)]
    for t in range(1, 16):
        slopes = torch.func.grad(loss, (0, 1))(state[0][0], state[1][0])
        moved = []
        for (value, first, second), slope, lr in zip(state, slopes, (0.06, 0.1), strict=True):
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            step = lr * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
            moved.append((value - step, first, second))
        state = [(moved[0][0].clamp(-3, 3), *moved[0][1:]), moved[1]]
    found = sa.invert_prototypes(model, CLASS, config, baseline=tiny_model(1))
    torch.testing.assert_close(found.z[0], state[0][0].detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.label[0], state[1][0].softmax(0).detach(), rtol=0, atol=1e-9)


def test_the_blind_loss_is_the_formula():
    model, config = tiny_model(), sa.ProbeConfig(n_restarts=4, steps=1, w_y=0.7, w_z=0.3)
    found = sa.invert_blind(model, CLASS, config)
    x, onehot = found.images, torch.tensor([0.0, 0.0, 1.0, 0.0]).double()
    expected = (
        0.04 * sa.total_variation(x)
        + 4.0 * (x.mean((1, 2, 3)) - 0.22).square()
        + 0.3 * found.z.square().mean(1)
        + 0.7 * (found.label - onehot).square().sum(1)
        - 1.5 * (x - 0.5).square().mean((1, 2, 3))
        - 1.0 * sa.orientation_entropy(x)
    )
    torch.testing.assert_close(found.loss, expected, rtol=0, atol=1e-12)
    assert (found.loss.diff() >= 0).all()


@pytest.mark.parametrize("over", SEARCHES)
def test_each_search_moves_what_it_says(over):
    model, config = tiny_model(), sa.ProbeConfig(steps=10)
    start = torch.randn((3, LATENT), generator=sa.seeded(1), dtype=torch.float64)
    start[0, 0] = 5.0  # farther out than a search for z goes
    found = probe(f"guided {over}", model, config, start=start)
    moved = torch.cdist(found.z, start).min(1).values > 1e-3
    assert moved.all() if over in ("both", "z") else not moved.any()
    own = model.label_vectors(torch.full((3,), CLASS))
    sums = found.label.sum(1)
    if over == "z":
        assert torch.equal(found.label, own)
    elif over == "free_y":
        assert ((found.label - own).abs().amax(1) > 1e-3).all()
        assert ((sums - 1).abs() > 1e-3).any()
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums))
        assert (found.label > 0).all()
    assert found.z.abs().max() == 5 if over in ("y", "free_y") else found.z.abs().max() <= 3


@pytest.mark.parametrize("role", ["guide", "wary"])
def test_the_guided_loss_falls_and_weights_stay(role):
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    first, found = (
        guided_attack(model, CLASS, sa.ProbeConfig(steps=steps), guide=tiny_judge(role))
        for steps in (1, 60)
    )
    assert found.loss.mean() < first.loss.mean()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", PROBES)
def test_a_search_that_is_watched_tells_its_steps_and_ends_when_told(kind, monkeypatch):
    model, told = tiny_model(), []
    bars = {}
    plain = sahelpers.attacks.latent.progress

    def progress(items, what, silent=False):
        bars["silent"] = silent
        return plain(items, what, silent)

    monkeypatch.setattr("sahelpers.attacks.latent.progress", progress)

    def on_step(done):
        told.append(done)
        return done < 4  # None, as a function without an answer gives, does not end it

    ended = probe(kind, model, sa.ProbeConfig(n_restarts=2, steps=9), on_step=on_step)
    assert told == [1, 2, 3, 4]
    assert bars == {"silent": True}
    short = probe(kind, model, sa.ProbeConfig(n_restarts=2, steps=4), on_step=lambda done: None)
    for name in ("images", "z", "label", "loss"):
        assert torch.equal(getattr(ended, name), getattr(short, name))
    probe(kind, model, sa.ProbeConfig(n_restarts=2, steps=1))
    assert bars == {"silent": False}


def test_without_a_configuration_the_presets_are_used(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "sahelpers.attacks.latent._search", lambda model, c, config, *_: asked.append(config)
    )
    sa.invert_prototypes(tiny_model(), CLASS, baseline=tiny_model(1))
    sa.invert_blind(tiny_model(), CLASS)
    guided_attack(tiny_model(), CLASS, guide=tiny_judge("guide"))
    assert asked == [sa.ProbeConfig.prototype(), sa.ProbeConfig(), sa.ProbeConfig()]


def test_success_needs_every_judge():
    judges = {role: tiny_judge(role) for role in ("open_set", "closed_set")}
    images = torch.rand((6, 1, 28, 28), generator=sa.seeded(0))
    judges["closed_set"].head.bias.data[CLASS] = 100.0
    judges["open_set"].head.bias.data[CLASS] = -100.0
    assert not sa.attack_success(images, judges, CLASS).any()
    judges["open_set"].head.bias.data[CLASS] = 100.0
    assert sa.attack_success(images, judges, CLASS).all()
    judges["closed_set"].head.bias.data[CLASS] = -100.0
    assert not sa.attack_success(images, judges, CLASS).any()


@pytest.mark.parametrize(("p", "found"), [(0.49, False), (0.51, True)])
def test_success_begins_at_one_half(p, found):
    judge = tiny_judge("closed_set")
    judge.head.weight.data.zero_()
    judge.head.bias.data.zero_()
    odds = torch.tensor((judge.num_classes - 1) * p / (1 - p))
    judge.head.bias.data[CLASS] = odds.log()
    images = torch.rand((2, 1, 28, 28), generator=sa.seeded(0))
    assert sa.attack_success(images, {"closed_set": judge}, CLASS).tolist() == [found] * 2


def test_reachable_is_the_share_of_the_prior():
    z = torch.randn((200_000, 5), generator=sa.seeded(0))
    assert 0.9985 < float(reachable(z).double().mean()) < 0.9995
    assert reachable(torch.zeros(1, 5)).all()
    assert not reachable(torch.full((1, 20), 3.0)).any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sa.ProbeConfig(n_restarts=0), "n_restarts=0"),
        (lambda: sa.ProbeConfig(steps=0), "steps=0"),
        (
            lambda: probe("blind", tiny_model(), sa.ProbeConfig(), start=torch.zeros(2, 9)),
            r"\(2, 9\)",
        ),
        (lambda: sa.invert_blind(tiny_model(), 4, sa.ProbeConfig()), "class 4"),
        (
            lambda: guided_attack(tiny_model(), CLASS, guide=tiny_judge("open_set")),
            "cannot guide as well",
        ),
        (lambda: probe("guided w", tiny_model(), sa.ProbeConfig()), "over='w'"),
        (
            lambda: sa.attack_success(torch.zeros(1, 1, 28, 28), {"g": tiny_judge("guide")}, 0),
            "not one that guides",
        ),
        (
            lambda: sa.attack_success(torch.zeros(1, 1, 28, 28), {"w": tiny_judge("wary")}, 0),
            "not one that guides",
        ),
        (lambda: sa.attack_success(torch.zeros(1, 1, 28, 28), {}, 0), "at least one"),
        (lambda: sa.reachable(torch.zeros(3)), r"z of shape \(3,\) must be \(R, Z\)"),
        (
            lambda: sa.image_cost(
                tiny_model(dtype=torch.float32), torch.rand(3, 1, 28, 28), torch.ones(2, 1).long()
            ),
            r"labels of shape \(2, 1\) must be \(K,\) or \(3, K\)",
        ),
    ],
)
def test_refusals_name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_cost_of_an_image_is_the_least_over_z(model, mnist):
    images, labels = mnist.only(3).take(4).images, torch.tensor([1, 8, 5])
    cost, z = sa.image_cost(model, images, labels)
    assert (cost.shape, z.shape) == ((4, 3), (4, 3, 3))

    @torch.no_grad()
    def price(n, k, at):
        logits = model.decode_logits(at[None], labels[k : k + 1])
        drawn = F.binary_cross_entropy_with_logits(logits, images[n : n + 1], reduction="sum")
        return float(drawn + 0.5 * at.square().sum())

    generator = sa.seeded(0)
    for n, k in ((0, 0), (3, 2), (1, 1)):
        assert price(n, k, z[n, k]) == pytest.approx(float(cost[n, k]), rel=1e-5)
        tried = [torch.zeros(3), *torch.randn((40, 3), generator=generator)]
        near = [z[n, k] + 0.2 * torch.randn(3, generator=generator) for _ in range(20)]
        assert cost[n, k] <= min(price(n, k, at) for at in (*tried, *near)) + 1e-3
    longer, _ = sa.image_cost(model, images, labels, steps=400)
    assert (cost - longer).max() < 1
    own, _ = sa.image_cost(model, images, labels[[0, 1, 2, 0]][:, None])
    assert own[:, 0].tolist() == pytest.approx([float(cost[n, n % 3]) for n in range(4)], rel=1e-5)
    assert all(p.requires_grad for p in model.parameters())


def test_a_cost_needs_images_and_labels_of_the_models_type(tiny, digits):
    with pytest.raises(ValueError, match=r"torch.float64 must be torch.float32"):
        sa.image_cost(tiny, digits.images.double(), torch.arange(2), 1)
    with pytest.raises(ValueError, match="0 images and 2 labels"):
        sa.image_cost(tiny, digits.images[:0], torch.arange(2), 1)
    with pytest.raises(ValueError, match="40 images and 0 labels"):
        sa.image_cost(tiny, digits.images, torch.arange(0), 1)
