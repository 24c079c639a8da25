import gzip
import hashlib
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

import sahelpers as sa
from sahelpers import data as module
from sahelpers.config import CHECKOUT, user_folder
from sahelpers.data import MNIST_DIGEST, DataError, data_root


def idx(values, kind):
    """An idx file's bytes, written by the format's description."""
    head = struct.pack(">HBB", 0, kind, values.ndim) + struct.pack(
        f">{values.ndim}I", *values.shape
    )
    return head + values.tobytes()


@pytest.fixture
def family(tmp_path, monkeypatch):
    """Small files in the four data sets' own formats, known to torchvision by their MD5 sums."""
    rng = np.random.default_rng(0)
    names = {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "qmnist": "QMNIST"}
    written = {}
    for name, folder in names.items():
        kind = getattr(datasets, folder)
        raw = tmp_path / folder / "raw"
        raw.mkdir(parents=True)
        table = kind.resources["test"] if name == "qmnist" else kind.resources[2:]
        pixels = rng.integers(0, 256, (20, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, 20)
        if name == "qmnist":
            columns = rng.integers(0, 9, (20, 8))
            columns[:, 0] = labels
            contents = [idx(pixels, 8), idx(columns.astype(">i4"), 12)]
        else:
            contents = [idx(pixels, 8), idx(labels.astype(np.uint8), 8)]
        new = []
        for (address, _), content in zip(table, contents, strict=True):
            packed = gzip.compress(content)
            (raw / address.rsplit("/", 1)[-1]).write_bytes(packed)
            new.append((address, hashlib.md5(packed).hexdigest()))
        known = {**kind.resources, "test": new} if name == "qmnist" else [*kind.resources[:2], *new]
        monkeypatch.setattr(kind, "resources", known)
        written[name] = (pixels, labels, [raw / a.rsplit("/", 1)[-1] for a, _ in new])
    return tmp_path, written


def test_mnist_equals_torchvisions_own_reading(tmp_path, mnist):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(CHECKOUT / "data" / "MNIST" / "raw", raw)
    theirs = datasets.MNIST(tmp_path, train=False, download=True)  # unpacks what is there
    assert torch.equal(mnist.images[:, 0], theirs.data.float() / 255)
    assert torch.equal(mnist.labels, theirs.targets)
    assert mnist.class_names == tuple("0123456789")


def test_digests_of_the_default_data(mnist):
    train = sa.load_dataset()
    assert len(train) == 60_000
    assert {"train": train.digest, "test": mnist.digest} == MNIST_DIGEST


def test_a_digest_names_images_labels_and_class_names(digits):
    """Equal data, equal digest; any change, another."""
    images, labels, names = digits.images, digits.labels, digits.class_names
    found = [sa.LabelledImages(images.clone(), labels, names).digest]
    found.append(sa.LabelledImages(images.mT.contiguous().mT, labels, list(names)).digest)
    assert found == [digits.digest] * 2
    brighter, relabelled = images.clone(), labels.clone()
    brighter[-1, 0, 0, 0] += 1e-6
    relabelled[-1] = 8
    others = [
        sa.LabelledImages(brighter, labels, names),
        sa.LabelledImages(images, relabelled, names),
        sa.LabelledImages(images, labels, (*names[:-1], "nine")),
        digits.without(3),
        sa.LabelledImages(images[:0], labels[:0], names),
    ]
    assert len({digits.digest, *(data.digest for data in others)}) == 6
    assert others[3].num_classes == 10


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist", "qmnist"])
def test_relatives_are_read(family, name):
    root, written = family
    pixels, labels, _ = written[name]
    data = sa.load_dataset(name, "test", root=root)
    assert np.array_equal((data.images[:, 0] * 255).round().numpy(), pixels)
    assert np.array_equal(data.labels.numpy(), labels)
    assert len(data.class_names) == 10


def test_torchvision_reads_the_same_relative(family):
    root, written = family
    for path in written["fashion_mnist"][2]:  # torchvision wants them unpacked
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    images, labels = (str(path.with_suffix("")) for path in written["fashion_mnist"][2])
    ours = sa.load_dataset("fashion_mnist", "test", root=root)
    assert torch.equal(ours.images[:, 0], datasets.mnist.read_image_file(images).float() / 255)
    assert torch.equal(ours.labels, datasets.mnist.read_label_file(labels))


def test_sums_in_the_readme_are_those_of_the_files():
    text = (CHECKOUT / "data" / "README.md").read_text()
    listed = re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.M)
    assert len(listed) == 4
    for digest, name in listed:
        content = (CHECKOUT / "data" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


def test_root_comes_from_the_argument_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SA_DATA", str(tmp_path / "b"))
    assert data_root(tmp_path / "a") == tmp_path / "a"
    assert data_root() == tmp_path / "b"
    monkeypatch.delenv("SA_DATA")
    assert data_root() == CHECKOUT / "data"


def test_a_setting_means_one_folder_from_everywhere(tmp_path, monkeypatch):
    """Relative paths counted from the working folder, so notebooks/ and a shell meant two; `~` was
    taken for a name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for setting, folder in [
        ("elsewhere/data", CHECKOUT / "elsewhere" / "data"),
        ("~/data", tmp_path / "data"),
        (str(tmp_path / "c"), tmp_path / "c"),
        ("", CHECKOUT / "data"),
    ]:
        monkeypatch.setenv("SA_DATA", setting)
        for working_folder in (CHECKOUT, CHECKOUT / "notebooks", tmp_path):
            monkeypatch.chdir(working_folder)
            assert data_root() == user_folder("SA_DATA", "data") == folder
    assert data_root("~/d") == tmp_path / "d"


def test_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"train-images.* is missing .*MD5.*SA_DATA.*download=True"):
        sa.load_dataset(root=tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_file_is_named_with_both_sums(family, damage):
    root, written = family
    path = written["kmnist"][2][0]
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes(b"" if damage == "empty" else content[: -1 if damage == "cut" else None])
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"{path.name} is damaged: expected MD5 .*, found {found}"):
        sa.load_dataset("kmnist", "test", root=root)


@pytest.fixture
def known(family, monkeypatch):
    """The small Fashion-MNIST, known by the sums of its contents too."""
    root, written = family
    pixels, _, paths = written["fashion_mnist"]
    sums = tuple(hashlib.sha256(gzip.decompress(p.read_bytes())).hexdigest() for p in paths)
    monkeypatch.setitem(module._UNPACKED, "fashion_mnist", ("", "", *sums))
    return root, pixels, paths


def test_genuine_contents_are_read_in_any_wrapping(known):
    """Debian packs Fashion-MNIST anew: "damaged"; torchvision leaves unpacked files: "missing"."""
    root, pixels, paths = known
    for wrap in (
        lambda content: {".gz": gzip.compress(content, 1, mtime=7)},
        lambda content: {"": content},
        lambda content: {"": b"a draft", ".gz": gzip.compress(content, 9, mtime=8)},
    ):
        contents = [gzip.decompress(path.read_bytes()) for path in paths]
        for path, content in zip(paths, contents, strict=True):
            path.unlink()
            for suffix, wrapped in wrap(content).items():
                path.with_suffix(suffix).write_bytes(wrapped)
        read = sa.load_dataset("fashion_mnist", "test", root=root, download=True)
        assert np.array_equal((read.images[:, 0] * 255).round().numpy(), pixels)
        for path, content in zip(paths, contents, strict=True):
            path.with_suffix("").unlink(missing_ok=True)
            path.write_bytes(gzip.compress(content, mtime=9))


def test_other_contents_are_refused_in_any_wrapping(known):
    root, _, paths = known
    whole = paths[0].read_bytes()
    content = bytearray(gzip.decompress(whole))
    content[100] ^= 1
    for packed in (gzip.compress(content), whole[:-20], content, b""):
        paths[0].write_bytes(packed)
        found = hashlib.md5(packed).hexdigest()
        with pytest.raises(
            DataError, match=rf"ubyte\.gz is damaged: expected MD5 \w+, found {found}.*Delete it"
        ):
            sa.load_dataset("fashion_mnist", "test", root=root)
    paths[0].unlink()
    paths[0].with_suffix("").write_bytes(content)
    with pytest.raises(
        DataError, match=r"ubyte is damaged: expected SHA256 \w+, found .*Delete it"
    ):
        sa.load_dataset("fashion_mnist", "test", root=root)


def test_contents_without_a_published_sum_need_the_published_file(family):
    root, written = family
    path = written["kmnist"][2][0]
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content, 1, mtime=7))
    with pytest.raises(DataError, match="is damaged: expected MD5"):
        sa.load_dataset("kmnist", "test", root=root)
    path.unlink()
    path.with_suffix("").write_bytes(content)
    with pytest.raises(DataError, match="is missing"):
        sa.load_dataset("kmnist", "test", root=root)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_sums_of_contents_are_those_of_the_genuine_files(name):
    """MNIST is here; Fashion-MNIST is where Debian's dataset-fashion-mnist is installed."""
    folder = CHECKOUT / "data" / "MNIST" / "raw"
    if name == "fashion_mnist":
        folder = Path("/usr/share/datasets/fashion-mnist")
        if not folder.is_dir():
            pytest.skip("Debian's dataset-fashion-mnist is not installed")
    table = getattr(datasets, {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]).resources
    files = [folder / address.rsplit("/", 1)[-1] for address, _ in table]
    contents = [gzip.decompress(path.read_bytes()) for path in files]
    assert module._UNPACKED[name] == tuple(hashlib.sha256(c).hexdigest() for c in contents)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x08", "not an idx file"),
        (struct.pack(">HBB3I", 0, 9, 3, 1, 28, 28) + bytes(784), "not an idx file"),
        (struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28) + bytes(784), r"784 into shape \(2,28,28\)"),
        (struct.pack(">HBB3I", 0, 8, 3, 1, 28, 28) + bytes(785), r"785 into shape \(1,28,28\)"),
        (struct.pack(">HBB3I", 0, 8, 3, 1, 27, 28) + bytes(756), "do not match"),
        (struct.pack(">HBB3I", 0, 8, 3, 3, 28, 28) + bytes(3 * 784), "do not match"),
    ],
)
def test_a_file_that_lies_is_refused_whatever_its_sum(family, monkeypatch, content, message):
    root, written = family
    path = written["kmnist"][2][0]
    path.write_bytes(gzip.compress(content))
    table = list(datasets.KMNIST.resources)
    table[2] = (table[2][0], hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(datasets.KMNIST, "resources", table)
    with pytest.raises(DataError, match=message):
        sa.load_dataset("kmnist", "test", root=root)


def test_download_is_left_to_torchvision_and_only_when_asked(family, monkeypatch):
    root, written = family
    calls = []
    monkeypatch.setattr(datasets.KMNIST, "__init__", lambda self, *a, **k: calls.append((a, k)))
    sa.load_dataset("kmnist", "test", root=root, download=True)
    assert calls == []  # nothing is missing
    written["kmnist"][2][0].unlink()
    with pytest.raises(DataError, match="missing"):
        sa.load_dataset("kmnist", "test", root=root)
    assert calls == []
    with pytest.raises(DataError, match="missing"):
        sa.load_dataset("kmnist", "test", root=root, download=True)
    assert calls == [((root,), {"download": True, "train": False})]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"name": "cifar"}, "name='cifar'"), ({"split": "valid"}, "split='valid'")],
)
def test_unknown_names(arguments, message):
    with pytest.raises(ValueError, match=message):
        sa.load_dataset(**arguments)


def test_labelled_images_select(digits):
    assert digits.only((3, 5)).labels.unique().tolist() == [3, 5]
    assert digits.without(3).labels.unique().tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert len(digits.without(())) == len(digits)
    part = digits.take(7, seed=1)
    assert torch.equal(part.images, digits.take(7, seed=1).images)
    assert len({image.numpy().tobytes() for image in part.images}) == 7


@pytest.mark.parametrize("n", [0, -1, 41])
def test_take_refuses_what_is_not_there(digits, n):
    with pytest.raises(ValueError, match=f"n={n} .*1 to 40"):
        digits.take(n)


def test_bad_images_and_labels():
    good, labels = torch.zeros(2, 1, 28, 28), torch.tensor([0, 1])
    for images, message in [
        (good + 1.5, "run from 1.5 to 1.5"),
        (good * float("nan"), r"must lie in \[0, 1\]"),
        (good[:, 0], r"\(B, C, H, W\)"),
        (good.byte(), "divide bytes by 255"),
    ]:
        with pytest.raises(ValueError, match=message):
            sa.LabelledImages(images, labels)
    with pytest.raises(ValueError, match="one for each image"):
        sa.LabelledImages(good, labels[:1])
    with pytest.raises(ValueError, match="int64"):
        sa.LabelledImages(good, labels.float())


def test_the_digest_counts_a_shape_that_is_not_mnists():
    labels, values = torch.arange(10).repeat(10), torch.rand(100, 512)
    flat, tall = (
        sa.LabelledImages(values.view(100, 1, *sides), labels) for sides in ((16, 32), (32, 16))
    )
    assert flat.digest != tall.digest
    assert flat.digest == sa.LabelledImages(values.view(100, 1, 16, 32), labels).digest


def test_data_that_are_on_the_device_stay_the_same_object(digits):
    assert digits.to("cpu") is digits
    assert digits.to("meta").to(torch.device("meta")).images.is_meta
