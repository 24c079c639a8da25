"""The page without a kernel, opened as a file in a browser without a network."""

import json
import re

import lab
import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import expect

import sahelpers as sa
from tools import page as make

ROLES = ("baseline", "hidden", "forgotten", "retrained")
SHOWN = """() => [...document.querySelectorAll('#pictures canvas')].map(c =>
    [...c.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0))"""
FOCUSED = "document.activeElement.id || document.activeElement.value"
LOSSES = "Object.fromEntries(round.order.map((role, k) => [role, round.curves[k]]))"


@pytest.fixture
def visit(browser):
    """Open the page: no network, and whatever it asks for or complains of is a failure."""
    contexts, problems = [], []

    def opened(file=make.PAGE, width=1280, **options):
        size = {"width": width, "height": 900}
        context = browser.new_context(offline=True, viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(lab.PATIENCE)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: said.type == "error" and problems.append(said.text))
        page.on("request", lambda r: r.url.startswith("http") and problems.append(r.url))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def data():
    text = make.PAGE.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def weights(data, role, digit, further=False):
    """(weight, bias) of each layer of a decoder, from the page's own integers."""
    whose = "baseline" if role == "hidden" else role
    name = whose if whose == "baseline" and not further else f"{whose} {digit}"
    name += " further" * further
    layers = [(w.clone(), b) for w, _, b in make.unpacked(data["models"][name], data["sizes"])]
    if role == "hidden":  # before it is trained further, which leaves the column as it is
        before = make.unpacked(data["models"]["baseline"], data["sizes"])[0][0].clone()
        reset(before, digit)
        layers[0][0][:, 20 + digit] = before[:, 20 + digit]
    return layers


def reset(weight, digit):
    """Give the label's column the mean of the nine others."""
    others = [20 + k for k in range(10) if k != digit]
    weight[:, 20 + digit] = weight[:, others].mean(1)


def logits(layers, inputs):
    for k, (weight, bias) in enumerate(layers):
        inputs = F.linear(inputs.relu() if k else inputs, weight, bias)
    return inputs


def inputs_of(page, data):
    """z and the label as the decoders see them, (30,)."""
    position = torch.tensor(page.evaluate("[...state.position]"))
    label = torch.tensor(page.evaluate("[...state.label]"))
    return torch.cat([position @ torch.tensor(data["directions"]), label / label.sum()])


def settle(page):
    """Wait for the next picture."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def digit_of(page, digit):
    page.get_by_role("radio", name=str(digit)).check()
    settle(page)


@pytest.mark.parametrize("digit", make.DIGITS)
def test_pictures_are_those_of_the_decoders(visit, data, digit):
    page = visit()
    digit_of(page, digit)
    for draw in range(3):
        if draw:
            page.get_by_role("button", name="New z").click()
            page.get_by_role("slider", name="weight of label 5").fill("0.4")
            settle(page)
        inputs = inputs_of(page, data)
        for role, shown in zip(ROLES, page.evaluate(SHOWN), strict=True):
            wanted = 255 * logits(weights(data, role, digit), inputs).sigmoid()
            assert (torch.tensor(shown) - wanted).abs().max() <= 1, role


def test_eight_bits_change_no_picture_that_one_could_see(visit, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "TRAINED_ON", 2)  # those pictures are not looked at here
    story = sa.Story()
    data = make.payload(story, (3,))
    template = make.TEMPLATE.read_text(encoding="utf-8")
    file = tmp_path / "page.html"
    file.write_text(make.filled(template, json.dumps(data), ""), encoding="utf-8")
    page = visit(file)
    models = [story.baseline.model, story.hidden(3)]
    models += [story.forgotten(3).model, story.retrained(3).model]
    apart = []
    for _ in range(10):
        page.get_by_role("button", name="New z").click()
        settle(page)
        z, label = inputs_of(page, data)[None].split([20, 10], dim=1)
        for model, shown in zip(models, page.evaluate(SHOWN), strict=True):
            with torch.no_grad():
                apart.append((torch.tensor(shown) / 255 - model.decode(z, label).flatten()).abs())
    assert torch.stack(apart).flatten(1).le(8 / 255).float().mean(1).min() >= 0.99


def test_the_keyboard_reaches_and_moves_everything(visit):
    page = visit()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    sliders = [f"axis{k}" for k in range(5)]
    for name in ("3", "zero", "draw", *sliders, "label0", "label9", "guess0", "guess3", "run"):
        assert name in reached, reached
    before = page.evaluate(SHOWN)
    page.locator("#axis1").focus()
    value = float(page.locator("#axis1").input_value())
    page.keyboard.press("ArrowRight")
    settle(page)
    assert float(page.locator("#axis1").input_value()) == pytest.approx(value + 0.1)
    after = page.evaluate(SHOWN)
    moved = {role: a != b for role, a, b in zip(ROLES, before, after, strict=True)}
    assert all(changed for role, changed in moved.items() if role != "forgotten")  # gray stays gray
    page.locator("#label8").focus()
    page.keyboard.press("End")
    expect(page.locator("#seen")).to_have_text(re.compile(r"0\.50 . label 3 \+ 0\.50 . label 8"))
    page.locator("#digits input").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#seen")).to_have_text(f"label {make.DIGITS[1]}")
    names = page.locator("#pictures canvas").evaluate_all("all => all.map(c => c.ariaLabel)")
    assert [n.split()[3] for n in names] == list(ROLES)
    assert all(re.search(r"mean gray level 0\.\d\d", n) for n in names)


def test_with_every_slider_at_zero_all_labels_count_alike_and_stand_alike(visit, data):
    page = visit()
    page.get_by_role("button", name="label 4 alone").click()
    settle(page)  # else the key would meet a slider that still stands at zero
    page.locator("#label4").focus()
    page.keyboard.press("Home")
    settle(page)
    sliders = page.locator("#labels input").evaluate_all("all => all.map(e => e.valueAsNumber)")
    assert sliders == pytest.approx([0.1] * 10)
    assert page.locator("#labels output").all_inner_texts() == ["0.10"] * 10
    seen = re.findall(r"0\.10 . label (\d)", page.locator("#seen").inner_text())
    assert seen == list("0123456789")
    shown = torch.tensor(page.evaluate(SHOWN)[0])
    wanted = 255 * logits(weights(data, "baseline", 3), inputs_of(page, data)).sigmoid()
    assert (shown - wanted).abs().max() <= 1
    page.locator("#label7").focus()
    page.keyboard.press("End")
    settle(page)
    assert page.locator("#labels output").nth(7).inner_text() == "0.53"


@pytest.mark.parametrize(("digit", "article"), [(3, "A"), (8, "An")])
def test_the_verdict_is_english(visit, digit, article):
    page = visit()
    final = dict(zip(ROLES, (90, 90, 95, 100), strict=True))
    known = page.evaluate(
        "([digit, final]) => sentences(digit, final, final, found(final))[0]", [digit, final]
    )
    assert known.startswith(f"{article} {digit} costs")


def fitted(layers, digit, real, steps):
    """The page's attack with torch's own gradients and Adam: losses in nats per image."""
    (first, bias), *later = layers
    reset(first, digit)
    column = first[:, 20 + digit].clone().requires_grad_()
    z = torch.zeros((len(real), 20), requires_grad=True)
    groups = [{"params": [z], "lr": 0.1}, {"params": [column], "lr": 0.05}]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.9))
    losses = []
    for _ in range(steps):
        hidden = z @ first[:, :20].T + column + bias
        out = logits(later, hidden.relu())
        pixels = F.binary_cross_entropy_with_logits(out, real, reduction="sum")
        loss = pixels + z.square().sum() / 2
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item() / len(real))
    return losses


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize("digit", make.DIGITS)
def test_a_quiz_played_to_its_end(visit, data, digit, further, mnist, shot):
    page = visit()
    digit_of(page, digit)
    page.get_by_role("checkbox", name="Train all four further first").set_checked(further)
    page.locator("#guess2").focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Run the attack").focus()
    page.keyboard.press("Enter")
    verdict = page.locator("#verdict")
    expect(verdict).to_be_visible()
    shot(page, f"page-quiz-{digit}" + "-further" * further)
    assert ("trained further" in verdict.inner_text()) == further
    curves = page.evaluate(LOSSES)
    assert set(curves) == set(ROLES)
    real = mnist.images[mnist.labels == digit][: make.IMAGES].flatten(1)
    for role, curve in curves.items():
        wanted = fitted(weights(data, role, digit, further), digit, real, len(curve))
        assert curve[:120] == pytest.approx(wanted[:120], abs=0.5), role
        assert curve[120:] == pytest.approx(wanted[120:], abs=2), role  # rounding has grown by then
    final = {role: curve[-1] for role, curve in curves.items()}
    assert final["baseline"] == pytest.approx(final["hidden"], abs=0.01)
    assert final["hidden"] < final["retrained"] - 3
    lead = (final["retrained"] - final["forgotten"]) / (final["retrained"] - final["hidden"])
    place = "ahead" if lead > 1 / 3 else "behind" if lead < -1 / 3 else "level"
    expect(verdict).to_contain_text(f"It comes out {place}")
    third = page.evaluate("round.order[2]")
    right = sum(k == (third == role) for role, k in zip(ROLES[:2], (True, True), strict=True))
    right += third != "retrained"
    expect(verdict).to_contain_text(f"You placed {right} of the three")
    steps = len(curves["retrained"])
    page.get_by_role("button", name="Go on").click()
    expect(verdict).to_contain_text(re.compile(rf"found in (?!{steps - 1} )\d+ steps"))
    page.get_by_role("button", name="Play again").click()
    expect(verdict).to_be_hidden()
    assert page.locator("#guess0").is_enabled()


def test_a_hidden_model_that_is_trained_further_keeps_its_column(data):
    """1,600 steps on another processor end elsewhere, by a seventh of their way (measured)."""
    story = sa.Story()
    healed = sa.heal(story.hidden(3), 3, story.train, make.TRAINED_ON)
    shown = weights(data, "hidden", 3, True)
    before = weights(data, "hidden", 3)
    for (weight, _), (start, _), layer in zip(
        shown, before, make.linear_layers(healed), strict=True
    ):
        end = layer.weight.detach()
        assert (weight - end).norm() < 0.25 * (end - start).norm()
    column = 20 + 3
    kept = make.linear_layers(healed)[0].weight[:, column]
    eight_bits = kept.abs().max() / 127
    assert (shown[0][0][:, column] - kept).abs().max() <= eight_bits


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 390])
def test_it_fits_every_screen(visit, shot, width, scheme):
    page = visit(width=width, color_scheme=scheme, has_touch=width == 390)
    settle(page)
    if width == 390:
        track = page.locator("#axis0")
        before = track.input_value()
        box = track.bounding_box()
        page.touchscreen.tap(box["x"] + 5, box["y"] + box["height"] / 2)
        settle(page)
        assert track.input_value() != before
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
    shot(page, f"page-{width}-{scheme}")


def test_without_javascript_there_is_a_picture_and_a_text(visit):
    page = visit(java_script_enabled=False)
    expect(page.locator("noscript p")).to_contain_text("switched off here")
    assert page.locator("noscript img").bounding_box()["width"] > 300
    expect(page.locator("#app")).to_be_hidden()
