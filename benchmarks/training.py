"""How fast the MLP baseline trains: against its matrix products alone and the official loop.

    python benchmarks/training.py

Prints ratios measured in one run, the sides in turn, median and range of ROUNDS, and leaves them in
results/benchmarks/training.json.  Everything runs on one thread and is timed by its processor, so
that other work on the machine matters little.

products: the three products of every layer (output, and the gradients of input and weight) at the
same shapes and number of steps, and nothing else.  official: the model of 8 latents in steps of
256, unfused Adam at 1e-4, a loss read out every step; its images come one by one through PIL and a
DataLoader, as torchvision's data set gives them, or from memory.  stacked: ten controls as one
model with a leading dimension (`torch.func.stack_module_state`, `vmap`), against ten of our steps.
"""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.functional import to_tensor

import sahelpers as sa
from sahelpers.store.files import replace_text

OUT = Path(__file__).resolve().parents[1] / "results" / "benchmarks" / "training.json"
ROUNDS = 5
IMAGES, EPOCHS, BATCH = 12_800, 2, 128  # passes beside the one that is taken off
OFFICIAL_BATCH, OFFICIAL_LATENTS, OFFICIAL_STEPS = 256, 8, 40
CONTROLS, STACKED_STEPS = 10, 20
STACKED_IMAGES = CONTROLS * STACKED_STEPS * BATCH


class OneByOne(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets give them: an array, a PIL image, a tensor."""

    def __init__(self, data: sa.LabelledImages) -> None:
        self.pixels = (255 * data.images[:, 0]).round().byte().numpy()
        self.labels = data.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return to_tensor(Image.fromarray(self.pixels[k])), self.labels[k]


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def ours(data: sa.LabelledImages, bf16: bool) -> float:
    """Seconds of EPOCHS passes, without what is done once, such as fitting the class Gaussians."""
    one, more = (sa.BaselineConfig(epochs=n, batch_size=BATCH) for n in (1, 1 + EPOCHS))
    test = data.take(1)  # the curve of the test images is not what is timed here
    whole = seconds(lambda: sa.train_baseline(data, test, more, bf16=bf16))
    return whole - seconds(lambda: sa.train_baseline(data, test, one, bf16=bf16))


def products(steps: int) -> None:
    """The matrix products of `steps` training steps of the MLP."""
    model = sa.CVAE()
    layers = [m for m in (*model.encoder, *model.decoder) if isinstance(m, torch.nn.Linear)]
    operands = []
    for layer in layers:
        weight = layer.weight.detach()
        x, g = torch.rand(BATCH, weight.shape[1]), torch.rand(BATCH, weight.shape[0])
        operands.append((x, weight, g))
    for _ in range(steps):
        for k, (x, weight, g) in enumerate(operands):
            x @ weight.T
            g.T @ x
            if k:  # nobody asks for the gradient of the images
                g @ weight


def official(batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """OFFICIAL_STEPS steps in the style of the official scripts."""
    model = sa.CVAE(latent_dim=OFFICIAL_LATENTS)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    stream = iter(batches)
    for _ in range(OFFICIAL_STEPS):
        images, labels = next(stream)
        loss = sa.negative_elbo(model, images, labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def stacked(data: sa.LabelledImages) -> None:
    """STACKED_STEPS steps of CONTROLS models in one pass."""
    models = [sa.CVAE() for _ in range(CONTROLS)]
    parameters, buffers = torch.func.stack_module_state(models)
    optimizer = torch.optim.Adam(parameters.values(), lr=2e-3, fused=True)
    own = sa.CVAE()

    def loss(p: dict[str, Tensor], b: dict[str, Tensor], *batch: Tensor) -> Tensor:
        nats: Tensor = torch.func.functional_call(own, (p, b), batch)
        return nats.mean()

    own.forward = lambda *batch: sa.negative_elbo(own, *batch)  # type: ignore[method-assign]
    for _ in range(STACKED_STEPS):
        index = torch.randint(len(data), (CONTROLS, BATCH))
        labels = torch.nn.functional.one_hot(data.labels[index], 10).float()
        noise = torch.randn(CONTROLS, BATCH, own.latent_dim)
        losses = torch.func.vmap(loss)(parameters, buffers, data.images[index], labels, noise)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()


def summary(ratios: list[float]) -> dict[str, float]:
    """Median and range."""
    numbers = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return {name: round(value, 2) for name, value in numbers.items()}


def main() -> None:
    """Measure, print, write."""
    os.environ["SA_PROGRESS"] = "0"
    torch.set_num_threads(1)
    data = sa.load_dataset().take(IMAGES)
    loader = DataLoader(OneByOne(data), OFFICIAL_BATCH, shuffle=True)
    memory = list(zip(data.images.split(256), data.labels.split(256), strict=True))
    passes, theirs = EPOCHS * IMAGES, OFFICIAL_STEPS * OFFICIAL_BATCH
    sides: dict[str, Callable[[], float]] = {  # images per second
        "ours": lambda: passes / ours(data, False),
        "ours, bf16": lambda: passes / ours(data, True),
        "products": lambda: passes / seconds(lambda: products(passes // BATCH)),
        "official, loader": lambda: theirs / seconds(lambda: official(loader)),
        "official, memory": lambda: theirs / seconds(lambda: official(memory)),
        "stacked": lambda: STACKED_IMAGES / seconds(lambda: stacked(data)),
    }
    for side in sides.values():
        side()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            rates[name].append(side())
    pairs = {
        "ours / products": ("ours", "products"),
        "bf16 / float32": ("ours, bf16", "ours"),
        "ours / official, loader": ("ours", "official, loader"),
        "ours, bf16 / official, loader": ("ours, bf16", "official, loader"),
        "ours / official, memory": ("ours", "official, memory"),
        "ours, bf16 / official, memory": ("ours, bf16", "official, memory"),
        "stacked / ours": ("stacked", "ours"),
    }
    found: dict[str, object] = {
        what: summary([a / b for a, b in zip(rates[one], rates[other], strict=True)])
        for what, (one, other) in pairs.items()
    }
    found["images per second"] = {n: round(statistics.median(r)) for n, r in rates.items()}
    for what, numbers in found.items():
        print(f"{what}: {numbers}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    replace_text(OUT, json.dumps({"1 thread": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
