"""The page without a kernel: results/page/index.html, one file that needs nothing else.

    make page      (or: python tools/page.py)

The decoders of the default baseline and, for each digit of the page, of the forgotten model and the
retrained one go into `page.html` as 8-bit integers with one scale per row, and once more those of
all three after they were trained further with the nine kept digits.  Beside them are ten test
images of each digit and the directions of z.  The page computes everything else by itself.  The
same models give the same bytes.
"""

import argparse
import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import sahelpers as sa
from sahelpers import live
from sahelpers.config import CHECKOUT
from sahelpers.store.files import replace_text

TEMPLATE = Path(__file__).with_name("page.html")
PAGE = CHECKOUT / "results" / "page" / "index.html"
DIGITS = (3, 8)
TRAINED_ON = sa.LadderConfig().heal_steps  # steps with kept images, as many as on the ladder
IMAGES = 10  # real ones per digit, the first of the test images
COLUMNS = 12  # of the picture for readers without JavaScript


def base64_of(values: Tensor) -> str:
    """The values' bytes in order, little-endian, as base64."""
    array = values.detach().cpu().contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers (out, in) int8 from -127 to 127 and scales (out,): scale times integer is the weight
    (out, in) to within half a scale."""
    scale = weight.abs().amax(1).clamp(min=1e-12) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def linear_layers(model: sa.CVAE) -> list[torch.nn.Linear]:
    """Those of the decoder.  Raises ValueError for a network with layers of another kind."""
    if model.arch != "mlp":
        raise ValueError(f"the page computes decoders of linear layers, not arch={model.arch!r}")
    return [layer for layer in model.decoder if isinstance(layer, torch.nn.Linear)]


def packed(model: sa.CVAE) -> dict[str, str]:
    """The decoder: `integers` of all layers; `floats`, each layer's scales and then its biases."""
    layers = linear_layers(model)
    integers, scales = zip(*(quantised(layer.weight.detach()) for layer in layers), strict=True)
    floats = [v for s, layer in zip(scales, layers, strict=True) for v in (s, layer.bias.detach())]
    return {
        "integers": base64_of(torch.cat([w.flatten() for w in integers])),
        "floats": base64_of(torch.cat(floats).float()),
    }


def unpacked(packed: dict[str, str], sizes: list[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Each layer's weight (out, in), scale and bias (out,), as the page reads them."""
    integers = torch.frombuffer(bytearray(base64.b64decode(packed["integers"])), dtype=torch.int8)
    floats = torch.frombuffer(bytearray(base64.b64decode(packed["floats"])), dtype=torch.float32)
    weights = integers.split([a * b for a, b in itertools.pairwise(sizes)])
    columns = floats.split([rows for rows in sizes[1:] for _ in range(2)])
    return [
        (weight.view(len(bias), -1) * scale[:, None], scale, bias)
        for weight, scale, bias in zip(weights, columns[::2], columns[1::2], strict=True)
    ]


def payload(story: sa.Story, digits: tuple[int, ...] = DIGITS) -> dict[str, Any]:
    """All that the page holds besides its text: decoders, directions of z and real images."""
    baseline = story.baseline.model
    models = {"baseline": packed(baseline)}
    for digit in digits:
        of_digit = {
            "forgotten": story.forgotten(digit).model,
            "retrained": story.retrained(digit).model,
        }
        for role, model in of_digit.items():
            models[f"{role} {digit}"] = packed(model)
        for role, model in {"baseline": baseline, **of_digit}.items():
            further = sa.heal(model, digit, story.train, TRAINED_ON)
            models[f"{role} {digit} further"] = packed(further)
    directions = live.principal_directions(baseline).T  # rows, each of length 1
    test = story.test
    real = {d: (255 * test.images[test.labels == d][:IMAGES]).round() for d in digits}
    return {
        "digits": digits,
        "further": TRAINED_ON,
        "sizes": [*(layer.in_features for layer in linear_layers(baseline)), 784],
        "latent": baseline.latent_dim,
        "directions": [[round(v, 5) for v in row] for row in directions.tolist()],
        "models": models,
        "images": {str(d): base64_of(images.to(torch.uint8)) for d, images in real.items()},
    }


def picture(story: sa.Story, digit: int = DIGITS[0]) -> str:
    """A PNG in base64: rows of samples of baseline, hidden, forgotten and retrained model."""
    label = torch.full((COLUMNS,), digit)
    z = torch.randn((COLUMNS, story.baseline.model.latent_dim), generator=sa.seeded(0))
    models = (
        story.baseline.model, story.hidden(digit), story.forgotten(digit).model,
        story.retrained(digit).model,
    )  # fmt: skip
    with torch.no_grad():
        rows = [torch.cat(list(m.decode(z, label)[:, 0]), dim=1) for m in models]
    file = io.BytesIO()
    pixels = (255 * torch.cat(rows)).round().to(torch.uint8).numpy()
    plt.imsave(file, pixels, cmap="gray", vmin=0, vmax=255, metadata={"Software": None})
    return base64.b64encode(file.getvalue()).decode()


def filled(template: str, data: str, png: str) -> str:
    """The page: the template with its data (JSON) and its picture (PNG in base64)."""
    return template.replace("{{picture}}", png).replace("{{data}}", data)


def main(target: Path = PAGE) -> None:
    """Make the page."""
    story = sa.Story()
    data = json.dumps(payload(story), separators=(",", ":"))
    page = filled(TEMPLATE.read_text(encoding="utf-8"), data, picture(story))
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_text(target, page)
    print(f"{target}: {len(page.encode()) / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=PAGE, help="the file to write")
    main(parser.parse_args().target)
