"""The page without a kernel, as far as it can be looked at without a browser."""

import base64
import json
import re

import numpy as np
import pytest
import torch

import sahelpers as sa
from tools import page as make


@pytest.fixture(scope="module")
def template():
    return make.TEMPLATE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page():
    return make.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(page):
    return re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]


def test_it_is_one_file_of_nine_megabytes_at_most():
    assert [p.name for p in make.PAGE.parent.iterdir()] == ["index.html"]
    assert make.PAGE.stat().st_size <= 9_000_000


def test_it_asks_nobody_for_anything(page):
    assert not re.search(r"https?:|//[\w.-]+\.\w+/|@import|fetch\(|XMLHttpRequest|WebSocket", page)
    sources = re.findall(r"""\b(?:src|href|url|action)\s*[=(]\s*["']?([^"'\s>]{1,40})""", page)
    assert sources
    assert all(s.startswith(("data:", "#")) for s in sources), sources
    assert "default-src 'none'" in page


def test_it_is_what_the_template_makes(page, template, data):
    png = re.search(r"data:image/png;base64,([\w+/=]+)", page)[1]
    assert base64.b64decode(png)[1:4] == b"PNG"
    assert page == make.filled(template, data, png), "the template changed: run `make page`"


def test_it_speaks_without_javascript(page):
    text = re.search(r"<noscript>(.*?)</noscript>", page, re.DOTALL)[1]
    assert "JavaScript" in text
    assert 'alt="' in text


def test_what_it_holds(data):
    data = json.loads(data)
    names = ["baseline"]
    for digit in make.DIGITS:
        names += [f"forgotten {digit}", f"retrained {digit}"]
        names += [f"{role} {digit} further" for role in ("baseline", "forgotten", "retrained")]
    assert list(data["models"]) == names
    assert data["further"] == make.TRAINED_ON == sa.LadderConfig().heal_steps
    for packed in data["models"].values():
        assert len(make.unpacked(packed, data["sizes"])) == 3
    directions = torch.tensor(data["directions"], dtype=torch.float64)
    assert torch.allclose(directions @ directions.T, torch.eye(20).double(), atol=1e-3)


def test_its_images_are_test_images_of_the_digit(data, mnist):
    for digit, packed in json.loads(data)["images"].items():
        images = np.frombuffer(base64.b64decode(packed), "u1").reshape(-1, 1, 28, 28)
        real = mnist.images[mnist.labels == int(digit)][: make.IMAGES]
        assert np.array_equal(images, (255 * real).round().numpy())


def test_weights_are_within_half_a_step(tiny):
    sizes = [13, 256, 512, 784]
    linear = [layer for layer in tiny.decoder if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        linear[0].weight[3] = 0  # a row without a largest weight
    layers = make.unpacked(make.packed(tiny), sizes)
    for (weight, scale, bias), layer in zip(layers, linear, strict=True):
        apart = (weight - layer.weight).abs()
        assert (apart <= 0.5001 * scale[:, None]).all()
        assert apart.max() > 0.4 * scale.min()
        assert torch.equal(bias, layer.bias)


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="arch='conv'"):
        make.packed(sa.CVAE("conv", latent_dim=3))


def test_the_same_models_give_the_same_bytes(model, fishers, mnist, monkeypatch, tmp_path):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr(make, "TRAINED_ON", 2)

    class Quick(sa.Story):
        """Nothing is forgotten or retrained: other models stand in for those."""

        def forgotten(self, digit):
            return sa.AmnesiaResult(self.hidden(digit), (digit,), {}, "budget", 0.0, 0)

        def retrained(self, digit, seed=None):
            return self.baseline

    def once():
        story = Quick((mnist, mnist), baseline=model)
        return json.dumps(make.payload(story, (7,))) + make.picture(story, 7)

    first = once()
    assert first == once()
    assert first.count('"forgotten 7"') == first.count('"forgotten 7 further"') == 1
    models = json.loads(first[: first.rindex("}") + 1])["models"]
    assert models["baseline 7 further"] != models["baseline"]
    assert '"sizes": [13, 256, 512, 784]' in first
