"""Small things that many tests need: nothing here is trained."""

import pytest
import torch

import sahelpers as sa


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
