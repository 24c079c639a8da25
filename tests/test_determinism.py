"""The same seed and the same number of threads: the same bits, in another process too."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import hashlib, json, torch, sahelpers as sa

def digest(value):
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return digest(list(value.items()))
    if isinstance(value, (list, tuple)):
        return hashlib.sha256("".join(map(digest, value)).encode()).hexdigest()
    return hashlib.sha256(repr(value).encode()).hexdigest()

def everything(seed):
    base = sa.BaselineConfig(epochs=1, batch_size=20, latent_dim=3, seed=seed)
    fish = sa.FisherConfig(n_fisher_samples=50, seed=seed)
    budget = {"epochs_unl": 1, "replay_samples": 320, "batch_size": 32, "cooldown": 2}
    amnesia = sa.AmnesiaConfig(**budget, seed=seed)
    probes = sa.ProbeConfig(n_restarts=3, steps=20, seed=seed)
    trained = sa.train_baseline(train, train, base)
    fishers = sa.class_fishers(trained.model, train, fish)
    model = sa.forget(trained.model, fishers.without(3), 3, amnesia).model
    return {
        "training": digest(trained.to_state()),
        "judge": digest(sa.train_judge(train, "open_set", judge(seed)).to_state()),
        "Fisher": digest(fishers.to_state()),
        "forget": digest(model.to_state()),
        "blind probe": digest(vars(sa.invert_blind(model, 3, probes))),
        "prototype probe": digest(
            vars(sa.invert_prototypes(model, 3, probes, baseline=trained.model))
        ),
        "samples": digest(model.sample(torch.arange(10), generator=sa.seeded(seed))),
    }

def judge(seed):
    return sa.JudgeConfig(epochs=1, batch_size=50, seed=seed)

train = sa.load_dataset(split="test").take(400)
found = {}
for threads in (1, 2):
    torch.set_num_threads(threads)
    torch.manual_seed(threads)  # the global generator has no say
    found[threads] = [everything(seed) for seed in (0, 1)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    """Digests by threads and seed, from two processes with other hash seeds and other pasts."""
    printed = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "OMP_WAIT_POLICY": "passive"}
        done = subprocess.run(
            [sys.executable, "-c", CODE], capture_output=True, text=True, env=env, check=False
        )
        assert done.returncode == 0, done.stderr
        printed.append(json.loads(done.stdout))
    return printed


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_agree_to_the_last_bit(found, threads, seed):
    one, other = (process[threads][seed] for process in found)
    assert one == other


@pytest.mark.parametrize("threads", ["1", "2"])
def test_another_seed_changes_everything(found, threads):
    one, other = found[0][threads]
    assert [what for what in one if one[what] == other[what]] == []
