"""Small things that many tests need: nothing here is trained."""

import pytest
import torch

import sahelpers as sa

torch.set_num_threads(1)  # tiny models: a second thread only waits, and on a busy machine long


@pytest.fixture(scope="session")
def mnist():
    return sa.load_dataset(split="test")


@pytest.fixture
def digits(mnist):
    """Forty real digits, four of each class."""
    index = torch.cat([(mnist.labels == c).nonzero()[:4, 0] for c in range(10)])
    return sa.LabelledImages(mnist.images[index], mnist.labels[index])


@pytest.fixture
def tiny():
    """An untrained model with three latent dimensions."""
    torch.manual_seed(0)
    return sa.CVAE(latent_dim=3).eval()


@pytest.fixture
def four():
    """The same of four classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return sa.CVAE(latent_dim=3, num_classes=4).eval()


@pytest.fixture
def four_images():
    """Six images of noise, (6, 1, 28, 28)."""
    return torch.rand((6, 1, 28, 28), generator=sa.seeded(1))


@pytest.fixture(scope="session")
def tiny_fishers():
    """The Fisher per class of that model, from two of its own images each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = sa.CVAE(latent_dim=3).eval()
    return sa.class_fishers(model, None, sa.FisherConfig(n_fisher_samples=20, source="model_mean"))


@pytest.fixture
def give_judges():
    """Gives a story these judges, so that it trains none."""

    def give(story, judges):
        for role, judge in judges.items():
            story._once(("judge", role), lambda judge=judge: judge)

    return give


@pytest.fixture(scope="session")
def scoring():
    """The two judges that score, untrained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return {role: sa.Judge(role).eval() for role in ("open_set", "closed_set")}


@pytest.fixture(scope="session")
def model(mnist):
    """A model that has seen a little, with class Gaussians."""
    config = sa.BaselineConfig(epochs=2, batch_size=20, latent_dim=3)
    return sa.train_baseline(mnist.take(1000), mnist.take(100), config).model


@pytest.fixture(scope="session")
def fishers(model, mnist):
    """Its Fisher per class."""
    return sa.class_fishers(model, mnist, sa.FisherConfig(n_fisher_samples=100))
