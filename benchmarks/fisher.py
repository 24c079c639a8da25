"""Speed and memory of the exact Fisher: `python benchmarks/fisher.py`, about four minutes.

Six ways to the same sum of squares, interleaved in one run on one thread, in time of the processor,
so that only the ratios count and other work on the machine matters little:

* plain: forward and backward of a batch, no squares; the floor;
* ours: `sa.squared_gradients`;
* vmap: `torch.func.vmap(grad)`, in chunks that fit the memory;
* loop: one image at a time, `backward()`, `F += p.grad**2`, nothing else;
* fused loop: the same without a temporary or a `.grad`, the fastest loop we could write;
* official style: as the published scripts do it, an image drawn from the decoder, backward, a test
  for NaN and a division in every parameter.
"""

import json
import multiprocessing
import statistics
import time
from pathlib import Path

import torch

import sahelpers as sa
from sahelpers.store.files import replace_text

OUT = Path(__file__).resolve().parents[1] / "results" / "benchmarks" / "fisher.json"
ROUNDS = 3
PEAKS = 3000, 12_000  # images of the two estimates whose memory is compared
IMAGES = {
    "plain": 6000,  # as many as the default's
    "ours": 6000,
    "vmap": 200,
    "loop": 150,
    "fused loop": 150,
    "official style": 100,
}


losses = sa.negative_elbo  # nats of each image


def make_inputs(model, n):
    """n random images, one-hot labels (as vmap wants them) and draws: the time does not depend on
    what is in the images."""
    images, noise = torch.rand(n, 1, 28, 28), torch.randn(n, model.latent_dim)
    return images, model.label_vectors(torch.arange(n) % 10), noise


def plain(model, inputs, chunk=250):
    """Forward and backward, chunk by chunk."""
    for part in zip(*(t.split(chunk) for t in inputs), strict=True):
        model.zero_grad()
        losses(model, *part).sum().backward()


def ours(model, inputs):
    """The package."""
    sa.squared_gradients(model, losses, inputs)


def vmap(model, inputs, chunk=50):
    """Per-example gradients of the whole model at once: 50 of them fill 200 MB."""
    values = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values, *example):
        example = tuple(t.unsqueeze(0) for t in example)
        return torch.func.functional_call(Losses(model), values, example).sum()

    values = {f"model.{name}": v for name, v in values.items()}
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))
    total = {name: torch.zeros_like(v) for name, v in values.items()}
    for part in zip(*(t.split(chunk) for t in inputs), strict=True):
        for name, g in gradients(values, *part).items():
            total[name] += g.square().sum(0)


class Losses(torch.nn.Module):
    """`losses` as a module, for `functional_call`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        """(B,) nats."""
        return losses(self.model, *inputs)


def loop(model, inputs):
    """The definition, as it is usually written."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for k in range(len(inputs[0])):
        model.zero_grad()
        losses(model, *(t[k : k + 1] for t in inputs)).sum().backward()
        for name, p in model.named_parameters():
            total[name] += p.grad**2


def fused_loop(model, inputs):
    """The definition, with one kernel per parameter."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for k in range(len(inputs[0])):
        loss = losses(model, *(t[k : k + 1] for t in inputs)).sum()
        for value, g in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            value.addcmul_(g, g)


def official_style(model, inputs):
    """One image drawn, scored and differentiated at a time, with the usual checks."""
    n = len(inputs[0])
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for k in range(n):
        label = inputs[1][k : k + 1]
        with torch.no_grad():
            image = model.decode(torch.randn(1, model.latent_dim), label)
        model.zero_grad()
        losses(model, image, label, torch.randn(1, model.latent_dim)).mean().backward()
        for name, p in model.named_parameters():
            if torch.isnan(p.grad.data).any():
                raise ValueError(f"NaN in {name}")
            total[name] += (p.grad.data**2) / n


WAYS = {
    "plain": plain,
    "ours": ours,
    "vmap": vmap,
    "loop": loop,
    "fused loop": fused_loop,
    "official style": official_style,
}


def speeds(arch):
    """Images per second of every way, ROUNDS of them, interleaved."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = sa.CVAE(arch)
    found = {name: [] for name in WAYS}
    for k in range(ROUNDS + 1):
        for name, way in WAYS.items():
            n = min(IMAGES[name], 6000 if arch == "mlp" else 1500)
            inputs = make_inputs(model, n)
            begin = time.process_time()
            way(model, inputs)
            if k:  # the first round warms up
                found[name].append(n / (time.process_time() - begin))
    return found


def peak_memory(arch, n):
    """Extra megabytes at the peak of an estimate of n images, in a process of its own (Linux)."""
    model = sa.CVAE(arch)
    inputs = make_inputs(model, n)
    plain(model, tuple(t[:10] for t in inputs))  # what any pass allocates once
    before = high_water()
    ours(model, inputs)
    return high_water() - before


def high_water():
    """The largest size this process has had, MB.  (ru_maxrss would start at the parent's.)"""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def summary(ratios):
    """Median and range of the rounds' ratios."""
    low, high = min(ratios), max(ratios)
    return {k: float(f"{v:.3g}") for k, v in zip(
        ("median", "min", "max"), (statistics.median(ratios), low, high), strict=True
    )}  # fmt: skip


def measured(arch):
    """The row of one network."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {n: round(pool.apply(peak_memory, (arch, n))) for n in PEAKS}
    found = speeds(arch)
    rounds = [dict(zip(found, one, strict=True)) for one in zip(*found.values(), strict=True)]
    ratios = {
        "time / plain pass": [r["plain"] / r["ours"] for r in rounds],
        **{f"x {name}": [r["ours"] / r[name] for r in rounds] for name in list(WAYS)[2:]},
    }
    return {
        "arch": arch,
        "threads": 1,
        "images per second": round(statistics.median(found["ours"])),
        **{name: summary(values) for name, values in ratios.items()},
        "peak MB": peaks,
    }


def main():
    """Measure, print a table, write the JSON."""
    rows = [measured(arch) for arch in ("mlp", "conv")]
    columns = [k for k in rows[0] if k not in ("arch", "threads", "images per second", "peak MB")]
    print("| model | images/s | " + " | ".join(columns) + " | peak MB, 3k / 12k images |")
    print("|---" * (len(columns) + 3) + "|")
    for row in rows:
        cells = [f"{row[c]['median']:g} ({row[c]['min']:g}-{row[c]['max']:g})" for c in columns]
        peak = " / ".join(str(v) for v in row["peak MB"].values())
        head = f"{row['arch']} | {row['images per second']}"
        print(f"| {head} | " + " | ".join(cells) + f" | {peak} |")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    replace_text(OUT, json.dumps({"rounds": ROUNDS, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
