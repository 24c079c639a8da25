"""Images and networks of the caller's own: what is taken, what is refused, and the whole chain."""

import copy
import io
import json
import os
import pickle
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sahelpers as sa
from sahelpers import live
from sahelpers.attacks.ladder import RUNGS
from sahelpers.config import CHECKOUT
from sahelpers.data import DataError, LabelledImages
from sahelpers.judges import JUDGE_ROLES
from sahelpers.store.archive import LIMIT, pack, unpack
from sahelpers.training import from_official, none_of_these, to_official
from study.experiments import your_data as drawn

SHAPES = [(1, 8, 8), (1, 20, 28), (3, 32, 32), (1, 64, 8)]
SHORT = sa.LadderConfig(images=4, z_steps=2, sets=1, fit_steps=2, heal_steps=2, relearn_steps=25)


@pytest.fixture
def hardly_masked(monkeypatch):
    """The audit's masked model is trained for two steps."""
    few = partial(sa.masked_model, steps=2)
    monkeypatch.setattr("sahelpers.attacks.audit.masked_model", few)


def noise(n, shape=(1, 8, 8), seed=0):
    return torch.rand((n, *shape), generator=sa.seeded(seed))


def labelled(classes=3, each=12, shape=(1, 8, 8)):
    """Classes of different gray and some noise."""
    labels = torch.arange(classes).repeat_interleave(each)
    images = 0.2 * noise(len(labels), shape) + 0.8 * labels.view(-1, 1, 1, 1) / classes
    return LabelledImages.from_arrays(images, labels)


# Arrays


ARRANGED = {
    "numpy": lambda x: x.numpy(),
    "no channel": lambda x: x[:, 0],
    "list": list,
    "list of numpy": lambda x: [image.numpy() for image in x[:, 0]],
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "bytes": lambda x: (255 * x).round().to(torch.uint8),
    "double": lambda x: x.double(),
    "long double": lambda x: x.numpy().astype(np.longdouble),
    "big-endian": lambda x: x.numpy().astype(">f4"),
    "with gradients": lambda x: x.requires_grad_(),
    "list with gradients": lambda x: list(x.requires_grad_()),
    "Pillow's": lambda x: [Image.fromarray((255 * i[0]).byte().numpy()) for i in x],
}


@pytest.mark.parametrize("arrange", ARRANGED.values(), ids=ARRANGED)
def test_every_arrangement_is_the_same_data(arrange):
    x = (255 * noise(30)).round() / 255
    found = LabelledImages.from_arrays(arrange(x), [0, 1, 2] * 10, "abc")
    assert found.image_shape == (1, 8, 8)
    torch.testing.assert_close(found.images, x)
    assert found.images.dtype == torch.float32
    assert (found.labels.tolist(), found.class_names) == ([0, 1, 2] * 10, ("a", "b", "c"))


def test_images_of_half_precision_are_the_same_data():
    x = (8 * noise(20)).round() / 8
    for kind in (torch.bfloat16, torch.float16):
        assert torch.equal(LabelledImages.from_arrays(x.to(kind), [0, 1] * 10).images, x)


@pytest.mark.parametrize("kind", [">i8", ">u2", "u8", "i1"])
def test_labels_of_every_whole_type_are_read(kind):
    found = LabelledImages.from_arrays(noise(20), np.array([0, 1] * 10, kind))
    assert found.labels.tolist() == [0, 1] * 10


def test_pillows_images_are_read_as_they_look():
    """A palette's entries were taken for gray levels."""
    picture = Image.new("P", (8, 8), 3)
    picture.putpalette([0, 0, 0, 9, 9, 9, 9, 9, 9, 250, 100, 50])
    found = LabelledImages.from_arrays([picture] * 20, [0, 1] * 10)
    assert found.image_shape == (3, 8, 8)
    assert (255 * found.images[0, :, 0, 0]).round().tolist() == [250, 100, 50]
    white = LabelledImages.from_arrays([Image.new("1", (8, 8), 1)] * 20, [0, 1] * 10)
    assert (white.image_shape, white.images.amin()) == ((1, 8, 8), 1)
    clear = [Image.new("RGBA", (8, 8), (9, 9, 9, 99))] * 20
    with pytest.raises(DataError, match=r"images\[0\] has transparent pixels"):
        LabelledImages.from_arrays(clear, [0, 1] * 10)


def test_names_may_be_given_by_number():
    """The keys of a dict were taken for the names."""
    found = LabelledImages.from_arrays(noise(20), [0, 1] * 10, {1: "disc", 0: "bar"})
    assert found.class_names == ("bar", "disc")
    for names in ({1: "bar", 2: "disc"}, {"bar": 0, "disc": 1}, {0: "bar"}):
        with pytest.raises(ValueError, match=r"names=\{.*give 2 .*number -> name, .* 0 to 1"):
            LabelledImages.from_arrays(noise(20), [0, 1] * 10, names)


def test_every_label_has_a_name_of_its_own():
    labels = torch.tensor([0, 2] * 10)
    with pytest.raises(ValueError, match=r"labels run from 0 to 2.*\[0, 1\].* has 2 names"):
        LabelledImages(noise(20), labels, ("bar", "disc"))
    with pytest.raises(ValueError, match="must lie in"):
        LabelledImages(noise(20), labels - 1)
    with pytest.raises(ValueError, match=r"class_names=.*give different ones"):
        LabelledImages(noise(20), labels, ("bar", "disc", "bar"))


@pytest.mark.parametrize(
    "images", [3, None, torch.utils.data.TensorDataset(noise(20))], ids=lambda x: type(x).__name__
)
def test_what_holds_no_images_is_named(images):
    with pytest.raises(TypeError, match=r"images is of type .*give an array, a tensor or a list"):
        LabelledImages.from_arrays(images, [0, 1] * 10)
    with pytest.raises(TypeError, match="images of type object"):
        LabelledImages.from_arrays(noise(20).numpy().astype(object), [0, 1] * 10)


BAD = {
    "from 1 on": (noise(20), [1, 2] * 10, None, r"labels \[1, 2\].*begin at 1: subtract 1"),
    "one class": (noise(20), [0] * 20, None, r"labels \[0\]: number two or more classes"),
    "three images": (noise(23), [0] * 20 + [1] * 3, "ab", "class 'b' has 3 images: give 10 or"),
    "mixed sizes": ([noise(1)[0, 0], torch.rand(9, 8)] * 10, [0, 1] * 10, None, "different sizes"),
    "values to 255": (255 * noise(20), [0, 1] * 10, None, r"to 25.*in \[0, 1\]: divide"),
    "NaN": (noise(20) * torch.nan, [0, 1] * 10, None, r"hold NaN; .*must lie in \[0, 1\]"),
    "skipped": (noise(20), [0, 2] * 10, None, r"labels \[0, 2\]: number"),
    "four channels": (noise(20, (4, 8, 8)), [0, 1] * 10, None, "1 or 3 channels, 8 to 64 pixels"),
    "5 x 5": (noise(20, (1, 5, 5)), [0, 1] * 10, None, r"\(1, 5, 5\).* must be \(channels"),
    "too large": (noise(20, (1, 65, 8)), [0, 1] * 10, None, "8 to 64 pixels a side"),
    "int64": (torch.zeros(20, 8, 8).long(), [0, 1] * 10, None, "type torch.int64: give uint8, or"),
    "half labels": (noise(20), [0.0, 1.0] * 10, None, "give 20 whole numbers"),
    "words": (noise(20), ["0", "1"] * 10, None, r"labels .*of <U1: give 20 whole.*np\.unique"),
    "one-hot": (noise(20), np.eye(2, dtype=int)[[0, 1] * 10], None, r"of int64: .*argmax\(1\)"),
    "truth": (noise(20), [False, True] * 10, None, "labels .*of bool: give 20 whole numbers"),
    "few labels": (noise(20), [0, 1], None, r"labels \(2,\) .*give 20 whole numbers"),
    "names": (noise(20), [0, 1] * 10, "a", r"names=\('a',\): give 2 different ones"),
    "none": ([], [], None, "different sizes, or none"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_are_refused_in_words(case):
    images, labels, names, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        LabelledImages.from_arrays(images, labels, names)


def test_a_split_keeps_equal_images_together_and_the_classes_balanced():
    data = labelled(4, 40)
    twice = LabelledImages.from_arrays(
        torch.cat([data.images, data.images[:30]]), torch.cat([data.labels, data.labels[:30]])
    )
    train, test = twice.split(0.25)
    assert len(train) + len(test) == 190
    assert "0 of them also in training" in train.report(test)
    plain = data.split(0.25)[1].labels.bincount().tolist()
    assert all(abs(n - 10) <= 1 for n in plain)
    again, other = (data.split(0.25, seed)[1].digest for seed in (0, 1))
    assert again == data.split(0.25)[1].digest != other
    with pytest.raises(ValueError, match="share=1"):
        data.split(1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.7, 0.9])
def test_a_split_of_ten_images_has_its_share_to_the_image(share):
    train, test = labelled(3, 10).split(share)
    assert test.labels.bincount().tolist() == [round(10 * share)] * 3
    assert len(train) + len(test) == 30


def test_a_split_without_images_of_a_class_on_one_side_says_so():
    data = labelled(3, 12)
    with pytest.raises(ValueError, match=r"share=0\.05 leaves class '0' \(12 .* to test with"):
        data.split(0.05)
    images = data.images.clone()
    images[24:] = images[24]  # all of class 2 are copies of one
    copies = LabelledImages.from_arrays(images, data.labels, ("bar", "disc", "ring"))
    for share in (0.25, 0.95):
        with pytest.raises(ValueError, match=r"leaves class 'ring'.*more images that differ"):
            copies.split(share)
    assert len(data.without(1).split(0.25)[1]) == 6  # a class that has no image asks for none


def test_the_report_counts_what_is_twice():
    data = labelled(2, 12)
    images = torch.cat([data.images, data.images[:3]])
    labels = torch.cat([data.labels, 1 - data.labels[:3]])
    found = LabelledImages.from_arrays(images, labels, ("dark", "light"))
    text = found.report(data)
    assert "27 images (1, 8, 8), 2 classes, smallest: dark (12), largest: light (15)" in text
    assert "equal to an earlier image: 3; of them with different labels: 3" in text
    assert "test: 24 images, 24 of them also in training" in text


def three_shapes():
    data = labelled(3, 12)
    return LabelledImages(data.images, data.labels, ("bar", "disc", "ring"))


def test_classes_have_names_wherever_data_are_asked():
    data = three_shapes()
    assert data.class_numbers("ring") == (2,)
    assert data.class_numbers(["ring", 0, np.str_("bar")]) == (0, 2)
    assert data.only("disc").digest == data.only(1).digest
    assert data.without(("bar", "ring")).digest == data.only(1).digest
    with pytest.raises(
        ValueError, match=r"'rin' is not .* from 0 to 2.* names: \('bar', 'disc', 'r"
    ):
        data.class_numbers("rin")
    with pytest.raises(ValueError, match=r"class 3 is not .* names: \('bar', 'disc', 'ring'\)"):
        data.only(3)
    with pytest.raises(ValueError, match="at least one must be kept"):
        data.class_numbers(("bar", "disc", "ring"))


def test_a_name_of_digits_is_a_name():
    """Among the folders 2, 5 and 7 the text "2" is class 0, and the number 2 is class "7"."""
    data = labelled(3, 12)
    data = LabelledImages(data.images, data.labels, ("2", "5", "7"))
    assert (data.class_numbers("2"), data.class_numbers(2)) == ((0,), (2,))
    with pytest.raises(ValueError, match=r"class '0' is not a class.*names: \('2', '5', '7'\)"):
        data.class_numbers("0")


@pytest.mark.parametrize(
    ("names", "surrogate", "found"),
    [
        (("bar", "disc", "ring"), "class:ring", "class:2"),
        (("bar", "disc", "ring"), "class:1", "class:1"),
        (("2", "5", "7"), "class:5", "class:1"),  # a text is always a name
        (("bar", "disc", "ring"), "gray", "gray"),
    ],
)
def test_a_surrogate_may_be_a_class_by_its_name(names, surrogate, found):
    data = labelled(3, 12)
    data = LabelledImages(data.images, data.labels, names)
    story = sa.Story((data, data), amnesia=sa.AmnesiaConfig(surrogate=surrogate))
    assert story.config.amnesia.surrogate == found
    again = sa.Story((data, data), amnesia=story.config.amnesia)
    assert again.config.amnesia.surrogate == found


def test_a_surrogate_that_may_be_a_name_or_a_number_is_refused():
    """Passed on from story to story, "class:3" would become "class:2" and then "class:1"."""
    data = labelled(3, 12)
    data = LabelledImages(data.images, data.labels, ("1", "2", "3"))
    story = sa.Story((data, data), amnesia=sa.AmnesiaConfig(surrogate="class:3"))
    assert story.config.amnesia.surrogate == "class:2"
    for either in (story.config.amnesia, sa.AmnesiaConfig(surrogate="class:1")):
        with pytest.raises(ValueError, match=r"is the name of class . and the number of class '"):
            sa.Story((data, data), amnesia=either)


def test_the_report_lists_numbers_and_names():
    assert "classes: 0 bar, 1 disc, 2 ring" in three_shapes().report()
    assert "classes: 0, 1, 2" in labelled(3, 12).report()


def test_a_model_which_knows_no_names_says_who_does():
    with pytest.raises(ValueError, match=r"'ring' is not a class: use .*data\.class_numbers"):
        sa.reset_label(sa.CVAE("mlp", 3, 3, (1, 8, 8)), "ring")


def small_story(data, **changes):
    """A story of untrained models, of which only what is said at once is of interest."""
    given = {"baseline": sa.CVAE("mlp", 3, data.num_classes, data.image_shape)}
    return sa.Story((data, data), **(given | changes))


def test_arrays_changed_afterwards_do_not_change_the_data():
    pixels, numbers = noise(20).numpy(), np.array([0, 1] * 10)
    for given in (pixels, torch.from_numpy(pixels)):
        data = LabelledImages.from_arrays(given, numbers)
        before = data.images.clone()
        pixels[0] = 1 - pixels[0]
        numbers[:] = 1 - numbers
        assert torch.equal(data.images, before)
        assert data.labels.tolist() != numbers.tolist()


def test_data_changed_through_numpy_are_other_data_in_a_new_story():
    """The file of the old data was loaded, for torch does not count what NumPy writes."""
    data = labelled(3, 12)
    first = small_story(data).retrained_recipe(1)
    assert data.digest == first.data["train"]
    data.images.numpy()[:] *= 0.5
    second = small_story(data).retrained_recipe(1)
    assert second.path != first.path
    assert second.data["train"] == LabelledImages(data.images, data.labels, tuple("012")).digest


def test_pillows_images_are_turned_as_their_note_says():
    stored = np.zeros((8, 8), np.uint8)
    stored[:4] = 255
    pictures = []
    for orientation in (1, 3):  # upright, and upside down
        file = io.BytesIO()
        note = Image.Exif()
        note[0x112] = orientation
        Image.fromarray(stored if orientation == 1 else stored[::-1]).save(file, "PNG", exif=note)
        pictures.append(Image.open(file))
    found = LabelledImages.from_arrays(pictures * 10, [0, 1] * 10).images
    assert torch.equal(found[0], found[1])


def test_what_has_no_order_is_refused():
    """Names went to the classes in the order of their hashes, another one in each process."""
    for names in ({"bar", "disc"}, frozenset(("bar", "disc"))):
        with pytest.raises(TypeError, match=r"names is a .*set, which has no order: give a list"):
            LabelledImages.from_arrays(noise(20), [0, 1] * 10, names)
        with pytest.raises(TypeError, match=r"class_names is a .*set, which has no order"):
            LabelledImages(noise(20), torch.tensor([0, 1] * 10), names)
    with pytest.raises(TypeError, match="images is a set, which has no order"):
        LabelledImages.from_arrays(set(noise(20)), [0, 1] * 10)


def test_bytes_of_a_few_levels_bring_a_warning():
    """Images of 0 and 1 among 255 levels became almost black without a word."""
    for largest in (1, 16):
        pixels = (noise(20) > 0.5).to(torch.uint8) * largest
        with pytest.warns(UserWarning, match=rf"largest value .* {largest} of 255.*divide them"):
            data = LabelledImages.from_arrays(pixels, [0, 1] * 10)
        assert f"values from 0 to {largest / 255:.3g}, almost black: divide" in data.report()
    LabelledImages.from_arrays((255 * noise(20)).byte(), [0, 1] * 10)
    assert "values from" not in labelled().report()


def test_a_masked_array_is_refused():
    """Its mask was lost."""
    pixels = np.ma.masked_less(noise(20).numpy(), 0.5)
    for images, name in ((pixels, "images"), (list(pixels), r"images\[0\]")):
        with pytest.raises(TypeError, match=rf"{name} is a masked array.*give \.filled"):
            LabelledImages.from_arrays(images, [0, 1] * 10)
    labels = np.ma.masked_equal([0, 1] * 10, 1)
    with pytest.raises(TypeError, match="labels is a masked array"):
        LabelledImages.from_arrays(noise(20), labels)


def test_arrays_with_negative_strides_and_read_only_ones_are_read():
    x, y = noise(20).numpy(), np.array([0, 1] * 10)
    found = LabelledImages.from_arrays(x[::-1, :, ::-1], y[::-1])
    assert np.array_equal(found.images.numpy(), x[::-1, :, ::-1])
    assert found.labels.tolist() == y[::-1].tolist()
    x.flags.writeable = y.flags.writeable = False
    assert np.array_equal(LabelledImages.from_arrays(x, y).images.numpy(), x)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_single(kind):
    """NumPy has no bfloat16, so that digest and report failed."""
    data = LabelledImages((8 * noise(20)).round().div(8).to(kind), torch.tensor([0, 1] * 10))
    assert data.images.dtype == torch.float32
    assert data.digest
    assert "20 images" in data.report()


def test_gradients_are_left_behind():
    data = LabelledImages(noise(20).requires_grad_(), torch.tensor([0, 1] * 10))
    assert not data.images.requires_grad
    assert data.digest
    assert "20 images" in data.report()


def test_labels_that_are_no_tensor_are_named():
    with pytest.raises(TypeError, match="labels is of type list, not Tensor"):
        LabelledImages(noise(20), [0, 1] * 10)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_a_story_works_in_single_precision(kind):
    """Double images blamed the model, and a baseline in bfloat16 failed at its digest."""
    data = labelled(3, 12)
    with pytest.raises(ValueError, match=rf"weights of type {kind} .*by baseline\.float\(\)"):
        small_story(data, baseline=sa.CVAE("mlp", 3, 3, (1, 8, 8)).to(kind))
    double = LabelledImages(data.images.double(), data.labels, data.class_names)
    for pair, name in (((double, data), "train"), ((data, double), "test")):
        with pytest.raises(ValueError, match=rf"images of {name} are .*64.* by images\.float\(\)"):
            sa.Story(pair)


def test_a_device_that_is_not_there_is_refused_at_once():
    data = labelled(3, 12)
    for device in ("gpu", "cuda:99", None):
        with pytest.raises(ValueError, match=rf"device='?{device}'? cannot be .*give auto or cpu"):
            small_story(data, device=device)


@pytest.mark.parametrize("surrogate", ["class:rin", "class:3", "class:-1", "class:\u0661"])
def test_a_surrogate_of_no_class_is_refused_before_anything_is_made(surrogate):
    """\\u0661 is a decimal digit, and no number of a class."""
    with pytest.raises(ValueError, match=r"is no class: give a number from 0 to 2, or a name: \('"):
        small_story(three_shapes(), amnesia=sa.AmnesiaConfig(surrogate=surrogate))


def test_names_are_the_same_however_their_accents_are_kept(tmp_path):
    """A folder's name in the decomposed form was no class when it was typed in the composed."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for name in (decomposed, "tea"):
        (tmp_path / name).mkdir()
        for k in range(10):
            Image.new("L", (8, 8), 200 + k).save(tmp_path / name / f"{k}.png")
    data = LabelledImages.from_folder(tmp_path, (1, 8, 8))
    assert data.class_names == (composed, "tea")
    assert data.class_numbers(composed) == data.class_numbers(decomposed) == (0,)
    given = sa.check_classes(composed, 2, names=(decomposed, "tea"))
    assert given == (0,)
    story = small_story(data, amnesia=sa.AmnesiaConfig(surrogate=f"class:{decomposed}"))
    assert story.config.amnesia.surrogate == "class:0"
    with pytest.raises(ValueError, match=r"class_names=.*give different ones"):
        LabelledImages(noise(20), torch.tensor([0, 1] * 10), (composed, decomposed))


def test_classes_may_come_from_an_iterator():
    story = small_story(labelled(3, 12))
    assert story.retrained_recipe(iter([1])).path == story.retrained_recipe(1).path
    assert story.hidden(iter([1])) is story.hidden(1)


def test_bytes_are_no_class():
    """b"1" was taken for the number of its letter, 49."""
    with pytest.raises(ValueError, match="class b'1' is not a class: use whole numbers"):
        labelled(3, 12).class_numbers(b"1")


@pytest.mark.parametrize("dataset", ["/path/to/folder", Path("/path/to/folder")])
def test_a_story_of_a_folder_says_what_reads_one(dataset):
    with pytest.raises((TypeError, ValueError), match=r"LabelledImages\.from_folder\(path\)"):
        sa.Story(dataset)


# Folders


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of 10 x 14 pixels in each of two folders."""
    for name, level in (("cats", 60), ("dogs", 180)):
        (tmp_path / name).mkdir()
        for k in range(12):
            Image.new("RGB", (14, 10), (level + k, level, level)).save(tmp_path / name / f"{k}.png")
    return tmp_path


def test_a_folder_of_folders_is_read_and_resized(folder):
    found = LabelledImages.from_folder(folder, (3, 20, 28))
    assert (len(found), found.image_shape, found.class_names) == (24, (3, 20, 28), ("cats", "dogs"))
    red, green, _ = found.only(1).images.mean((0, 2, 3)).tolist()
    assert (red, green) == pytest.approx((185.5 / 255, 180 / 255), abs=1e-3)
    assert LabelledImages.from_folder(folder, (1, 8, 8)).image_shape == (1, 8, 8)


@pytest.mark.parametrize("path", [None, 3, b"folder"])
def test_a_path_that_is_none_is_named(path):
    with pytest.raises(TypeError, match=r"path is of type .*not str or PathLike: give the folder"):
        LabelledImages.from_folder(path)


def test_a_picture_beside_the_folders_is_named(folder):
    """It was passed over, though any other file there was refused."""
    Image.new("L", (14, 10)).save(folder / "12.png")
    with pytest.raises(DataError, match=r"12\.png lies beside the folders of the classes: move it"):
        LabelledImages.from_folder(folder)
    (folder / "12.png").unlink()
    (folder / "cats").rename(folder / "cats.png")  # a folder may have any name
    assert LabelledImages.from_folder(folder).class_names == ("cats.png", "dogs")


def test_a_shape_may_be_a_list(folder):
    assert LabelledImages.from_folder(folder, [3, 20, 28]).image_shape == (3, 20, 28)
    assert sa.CVAE("mlp", 3, 3, [1, 8, 8]).image_shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"the channels stand first: \(3, 14, 20\)"):
        LabelledImages.from_folder(folder, (14, 20, 3))


def test_a_class_may_have_a_point_in_its_name(folder):
    (folder / "dogs").rename(folder / "St. Bernard")
    assert LabelledImages.from_folder(folder).class_names == ("St. Bernard", "cats")


def test_folders_are_numbered_as_people_count(tmp_path):
    """Class 2 of the folders 0 to 11 was called 10."""
    for k in range(12):
        (tmp_path / str(k)).mkdir()
        for n in range(10):
            Image.new("L", (8, 8), 20 * k).save(tmp_path / str(k) / f"{n}.png")
    found = LabelledImages.from_folder(tmp_path, (1, 8, 8))
    assert found.class_names == tuple(map(str, range(12)))
    assert (255 * found.only(2).images).round().unique().tolist() == [40]
    for old, new in {"3": "Page 10", "4": "Page 9", "5": "Page 9b", "6": "007", "7": "07"}.items():
        (tmp_path / old).rename(tmp_path / new)
    order = ("0", "1", "2", "007", "07", "8", "9", "10", "11", "Page 9", "Page 9b", "Page 10")
    assert LabelledImages.from_folder(tmp_path, (1, 8, 8)).class_names == order


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "val"), ("train", "dogs")])
def test_splits_are_no_classes(folder, names):
    """They were read as two classes, train and test."""
    for name in names:
        (folder / name / "inner").mkdir(parents=True)
        Image.new("L", (14, 10)).save(folder / name / "inner" / "1.png")
    with pytest.raises(DataError, match=rf"splits and no classes.*from_folder\('.*{names[0]}'\)"):
        LabelledImages.from_folder(folder)


def test_two_folders_named_like_splits_are_no_classes(folder):
    (folder / "cats").rename(folder / "train")
    assert LabelledImages.from_folder(folder).class_names == ("dogs", "train")  # a vehicle
    (folder / "dogs").rename(folder / "test")
    with pytest.raises(DataError, match="has test and train, which are splits"):
        LabelledImages.from_folder(folder)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".hidden", "__MACOSX"])
def test_what_is_hidden_is_left_out(folder, name):
    before = LabelledImages.from_folder(folder).digest
    for place in (folder, folder / "cats"):
        (place / name / "cats").mkdir(parents=True)
        (place / name / "1.png").write_bytes(b"no picture")
        (place / name / "cats" / "notes.txt").write_text("mine")
    (folder / "dogs" / "._3.png").write_bytes(b"what macOS leaves beside a picture")
    assert LabelledImages.from_folder(folder).digest == before


@pytest.mark.parametrize("target", [".", "..", "../..", "../other"])
def test_links_that_lead_back_are_left_out(folder, target):
    """Every picture was read forty times."""
    before = LabelledImages.from_folder(folder).digest
    if target == "../other":  # from one to the other and back
        target = folder.parent / f"{folder.name} beside"
        target.mkdir()
        os.symlink(folder / "cats", target / "back")
    os.symlink(target, folder / "cats" / "loop")
    assert LabelledImages.from_folder(folder).digest == before
    os.symlink("..", folder / "up")
    os.symlink(".", folder / "self")
    assert LabelledImages.from_folder(folder).digest == before


def test_links_that_lead_elsewhere_are_followed(folder, tmp_path_factory):
    before = LabelledImages.from_folder(folder).digest
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "moved"
    (folder / "cats").rename(elsewhere)
    os.symlink(elsewhere, folder / "cats")
    assert LabelledImages.from_folder(folder).digest == before


def test_a_class_without_pictures_is_named(folder):
    (folder / "birds").mkdir()
    with pytest.raises(DataError, match=r"birds has no pictures: put 10 or more there, or delete"):
        LabelledImages.from_folder(folder)


def test_a_picture_is_turned_as_its_note_says(folder):
    upright = Image.new("L", (14, 10))
    upright.paste(255, (0, 0, 14, 5))  # light above dark
    note = upright.getexif()
    note[0x112] = 6  # "the right edge of what is stored is the top": lay it on its side
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(folder / "cats" / "0.png", exif=note)
    upright.save(folder / "cats" / "1.png")
    turned, plain = LabelledImages.from_folder(folder).images[:2]
    assert torch.equal(turned, plain)


def test_no_other_program_reads_a_picture(folder, monkeypatch):
    """An EPS file that was called a PNG started Ghostscript."""
    from PIL import EpsImagePlugin

    def start(*_, **__):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"
    (folder / "cats" / "11.png").write_text(head)
    with pytest.raises(DataError, match=r"11\.png is damaged, or none of JPEG, PNG, .* identify"):
        LabelledImages.from_folder(folder)


def test_height_and_width_are_not_swapped_unawares(folder):
    with pytest.raises(ValueError, match=r"wider than high.*give \(3, 20, 28\), or stretch=True"):
        LabelledImages.from_folder(folder, (3, 28, 20))
    assert LabelledImages.from_folder(folder, (3, 28, 20), stretch=True).image_shape == (3, 28, 20)
    assert LabelledImages.from_folder(folder, (3, 24, 24)).image_shape == (3, 24, 24)
    for name in ("cats", "dogs"):
        for k in range(12):
            Image.new("L", (10, 14)).save(folder / name / f"{k}.png")
    with pytest.raises(ValueError, match=r"higher than wide.*give \(1, 28, 20\)"):
        LabelledImages.from_folder(folder, (1, 20, 28))


def test_what_is_no_picture_is_named(folder):
    (folder / "cats" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt is no picture"):
        LabelledImages.from_folder(folder)


def test_a_damaged_picture_is_named(folder):
    whole = (folder / "dogs" / "3.png").read_bytes()
    for content in (b"no picture", whole[: len(whole) // 2]):
        (folder / "dogs" / "3.png").write_bytes(content)
        with pytest.raises(DataError, match=r"dogs.3\.png is damaged.*Delete or replace"):
            LabelledImages.from_folder(folder)
    (folder / "dogs" / "3.png").rename(folder / "dogs" / "4.ppm").write_bytes(b"P6\nmany 8\n255\n")
    with pytest.raises(DataError, match=r"dogs.4\.ppm is damaged.*Delete or replace"):
        LabelledImages.from_folder(folder)


@pytest.mark.parametrize(
    ("mode", "level", "said"),
    [
        ("I;16", 20_000, "more than 8 bits a channel"),
        ("RGBA", (0, 0, 0, 0), "transparent pixels"),
        ("LA", (0, 128), "transparent pixels"),
    ],
)
def test_a_picture_that_would_be_ruined_is_named(folder, mode, level, said):
    """Cut off at white, or black on nothing, which would become black on black."""
    Image.new(mode, (14, 10), level).save(folder / "dogs" / "3.png")
    for channels in (1, 3):
        with pytest.raises(DataError, match=rf"dogs.3\.png has {said}: save it with 8 bits"):
            LabelledImages.from_folder(folder, (channels, 28, 28))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_pictures_of_other_kinds_are_read(folder, mode):
    Image.new("RGB", (14, 10), "white").convert(mode).save(folder / "dogs" / "3.png")
    assert LabelledImages.from_folder(folder).only(1).images.amax() == 1


def test_a_folder_without_classes_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="has no folder of pictures per class"):
            LabelledImages.from_folder(path)


def test_real_small_digits_need_no_file(monkeypatch):
    train, test = (sa.load_dataset("digits8", split) for split in ("train", "test"))
    assert (len(train) + len(test), train.image_shape, train.num_classes) == (1797, (1, 8, 8), 10)
    assert test.labels.bincount().min() >= 40
    assert train.images.max() == 1
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        sa.load_dataset("digits8")


# Shapes


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_models_are_made_for_any_shape_and_kept_with_it(arch, shape):
    model, y = sa.CVAE(arch, 3, 4, shape).eval(), torch.arange(4)
    mean, _ = model.encode(noise(4, shape), y)
    assert model.decode(mean, y).shape == (4, *shape)
    again = sa.CVAE.from_state(unpack(pack(model.to_state())))
    assert again.image_shape == shape
    assert torch.equal(again.decode(mean, y), model.decode(mean, y))
    with pytest.raises(ValueError, match="images of shape"):
        model.encode(noise(4, (shape[0], 12, 12)), y)


def test_files_of_mnist_models_are_as_they_were():
    for module in (sa.CVAE(latent_dim=3), sa.Judge("closed_set")):
        assert "image_shape" not in module.to_state()
        assert type(module).from_state(module.to_state()).image_shape == (1, 28, 28)


@pytest.mark.parametrize("shape", [(1, 7, 8), (2, 8, 8), (1, 8), (1, 65, 8), (1.0, 8, 8), "abc"])
def test_other_shapes_are_refused(shape):
    for make in (
        lambda: sa.CVAE(image_shape=shape),
        lambda: sa.Judge("open_set", image_shape=shape),
    ):
        with pytest.raises(ValueError, match=r"image_shape=.* must be \(channels, height, width\)"):
            make()


def test_the_convolutional_network_takes_multiples_of_four():
    with pytest.raises(ValueError, match="arch='conv' takes multiples of 4"):
        sa.CVAE("conv", image_shape=(1, 10, 8))
    assert sa.CVAE("mlp", image_shape=(1, 10, 9)).image_shape == (1, 10, 9)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 9, 11)], ids=str)
def test_judges_look_at_any_shape(shape):
    for role in JUDGE_ROLES:
        judge = sa.Judge(role, 5, shape).eval()
        assert judge.probabilities(noise(3, shape)).shape == (3, 5 + judge.has_none)
        with pytest.raises(ValueError, match="images of shape"):
            judge.probabilities(noise(3, (1, 28, 28)))


@pytest.mark.parametrize("shape", [*SHAPES, (1, 9, 11)], ids=str)
def test_what_is_none_of_these_has_the_shape(shape):
    images, labels = noise(12, shape), torch.arange(12) % 3
    junk = none_of_these(images, labels, 18, sa.seeded(0))
    assert junk.shape == (18, *shape)
    assert 0 <= junk.min() <= junk.max() <= 1
    for shuffled in junk[5::6]:  # the same gray levels in other places
        assert any(torch.equal(shuffled.sort(-1)[0].sum(), i.sort(-1)[0].sum()) or torch.equal(
            shuffled.flatten().sort()[0], i.flatten().sort()[0]) for i in images)  # fmt: skip


def test_measures_and_denoising_take_colours():
    gray = noise(2, (1, 12, 16))
    colour = gray.expand(-1, 3, -1, -1)
    for measure in (sa.total_variation, sa.contrast, sa.orientation_entropy):
        torch.testing.assert_close(measure(colour), measure(gray))
    torch.testing.assert_close(sa.ink(colour, 0.2), sa.ink(gray, 0.2))
    found = sa.denoise_tv(torch.cat([gray, gray / 2, gray], dim=1), 0.1, gap=1e-5)
    torch.testing.assert_close(found[:, :1], sa.denoise_tv(gray, 0.1, gap=1e-5), atol=3e-3, rtol=0)


def test_plots_show_colours_and_other_sides():
    ax = sa.plots.class_columns(noise(8, (3, 8, 12)), torch.arange(4).repeat(2), 2, names="wxyz")
    assert ax.get_images()[0].get_array().shape == (2 * 10 - 2, 4 * 14 - 2, 3)
    from sahelpers.live.base import png

    assert Image.open(__import__("io").BytesIO(png(noise(4, (3, 8, 8)), 2))).size == (120, 120)


# Networks of one's own


class Residual(nn.Module):
    """A block with group norm."""

    def __init__(self, width):
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(2, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv(torch.relu(self.norm(x)))


class Encoder(nn.Module):
    def __init__(self, classes=3, latent=3, width=8):
        super().__init__()
        self.first, self.block = nn.Conv2d(1, width, 4, 2, 1), Residual(width)
        self.label, self.last = nn.Linear(classes, width), nn.Linear(width * 16, 2 * latent)

    def forward(self, images, y):
        h = self.first(images) + self.label(y)[:, :, None, None]
        return self.last(self.block(h).flatten(1))


class Decoder(nn.Module):
    def __init__(self, classes=3, latent=3, width=8):
        super().__init__()
        self.first, self.label = nn.Linear(latent, width * 16), nn.Linear(classes, width * 16)
        self.block, self.last = Residual(width), nn.ConvTranspose2d(width, 1, 4, 2, 1)

    def forward(self, z, y):
        h = (self.first(z) + self.label(y)).view(len(z), -1, 4, 4)
        return self.last(self.block(h))


class Says:
    """Where the label enters: a layer of its own."""

    def label_weights(self):
        return self.label.weight, 0


class SayingEncoder(Says, Encoder):
    pass


class SayingDecoder(Says, Decoder):
    pass


def own(encoder=Encoder, decoder=Decoder, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return sa.CVAE(latent_dim=3, num_classes=3, image_shape=(1, 8, 8),
                       encoder=encoder(), decoder=decoder())  # fmt: skip


@pytest.fixture(scope="module")
def gray():
    return labelled(3, 40).split()


def trained(gray, seed, exclude=(), **halves):
    config = sa.BaselineConfig(epochs=40, batch_size=30, exclude=exclude, seed=seed, lr=5e-3)
    return sa.train_baseline(*gray, config, model=own(seed=seed, **halves)).model


@pytest.fixture(scope="module")
def mine(gray):
    return trained(gray, 1)


def test_a_network_of_ones_own_forgets_and_all_its_layers_are_tied(mine, gray):
    fisher = sa.class_fishers(mine, gray[0], sa.FisherConfig(n_fisher_samples=30)).without(0)
    assert all(values.any() for values in fisher.diagonal.values())  # its GroupNorm too
    few = {"epochs_unl": 20, "replay_samples": 640, "batch_size": 128, "forget_batch": 128}
    config = sa.AmnesiaConfig(cooldown=20, push=2.0, **few)
    result = sa.forget(mine, fisher, 0, config)
    y, z = torch.full((200,), 0), torch.randn((200, 3), generator=sa.seeded(0))
    before, after = (m.decode(z, y).sub(0.5).square().mean().sqrt() for m in (mine, result.model))
    assert after < 0.5 * before  # of the way to gray
    kept = torch.full((200,), 2)
    assert (result.model.decode(z, kept) - mine.decode(z, kept)).abs().mean() < 0.05


class Forgetful(SayingDecoder):
    """With dropout, which draws from torch's own generator."""

    def forward(self, z, y):
        return super().forward(nn.functional.dropout(z, 0.5, self.training), y)


def test_seeds_say_all_of_networks_with_dropout(gray):
    model = own(SayingEncoder, Forgetful).train()
    fisher = sa.diagonal_fisher(model, gray[0], sa.FisherConfig(n_fisher_samples=30))
    judges = {"closed_set": sa.Judge("closed_set", 3, (1, 8, 8)).eval()}
    config = sa.AmnesiaConfig(epochs_unl=1, replay_samples=256, cooldown=1)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # of what nobody may draw from
        forgotten = sa.forget(model, fisher, 0, config).model.state_dict()
        curve = sa.relearn(model, 0, data=gray[1], judges=judges, steps=3, over="label")
        found.append((forgotten, curve.probability))
    assert all(torch.equal(a, b) for a, b in zip(*(f[0].values() for f in found), strict=True))
    assert found[0][1] == found[1][1]


def test_a_story_of_ones_own_networks_forgets_and_keeps_no_file(mine, gray, tmp_path, monkeypatch):
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    config = sa.AmnesiaConfig(epochs_unl=1, replay_samples=256, cooldown=1)
    fisher, judge = sa.FisherConfig(n_fisher_samples=30), sa.JudgeConfig(epochs=1)
    story = sa.Story(gray, baseline=mine, fisher=fisher, amnesia=config, judge=judge)
    assert story.forgotten(0) is story.forgotten(0)
    assert not list(tmp_path.glob("vae_*"))
    assert not list(tmp_path.glob("fisher*"))  # other networks may have the same weights
    assert not sa.Story(gray, baseline=own().train()).baseline.model.training  # dropout rests
    with pytest.raises(ValueError, match=r"networks are your own: .*exclude=\(0,\).*model="):
        story.retrained(0)
    board = sa.live.AmnesiaDashboard(story, 0)
    assert "Ready" in board.status.value
    assert "hidden" not in board.models.value


def test_no_other_network_is_built_beside_one_of_ones_own(gray, monkeypatch):
    """It might not take these images, as a conv one of 30 x 30 pixels does not."""
    monkeypatch.setattr(sa.training, "CVAE", lambda *_: pytest.fail("built"))
    sa.train_baseline(*gray, sa.BaselineConfig(epochs=1), model=own())


def test_test_images_of_another_shape_are_refused_before_a_pass(gray, mnist):
    digits = sa.LabelledImages(mnist.images[:30], mnist.labels[:30] % 3, gray[0].class_names)
    with pytest.raises(ValueError, match=r"images of test of shape \(30, 1, 28, 28\)"):
        sa.train_baseline(gray[0], digits)


def test_labels_are_reset_where_the_network_says():
    model = own(SayingEncoder, SayingDecoder)
    hidden = sa.reset_label(model, 1)
    for half in ("encoder", "decoder"):
        old = getattr(model, half).label.weight
        new = getattr(hidden, half).label.weight
        torch.testing.assert_close(new[:, 1], (old[:, 0] + old[:, 2]) / 2)
        assert torch.equal(new[:, [0, 2]], old[:, [0, 2]])
    assert model.says_label
    assert not own().says_label
    with pytest.raises(ValueError, match=r"no method label_weights\(\)"):
        sa.reset_label(own(), 1)


class Narrow(Encoder):
    def forward(self, images, y):
        return super().forward(images, y)[:, :5]


class Flat(Decoder):
    def forward(self, z, y):
        return super().forward(z, y).flatten(1)


def test_wrong_networks_are_found_before_training():
    with pytest.raises(ValueError, match=r"encoder makes \(2, 5\) .*, not \(2, 6\)"):
        own(Narrow)
    with pytest.raises(ValueError, match=r"decoder fails on inputs \(2, 3\) and \(2, 3\): mat1"):
        own(decoder=lambda: Decoder(latent=4))
    assert own(decoder=Flat).decode(torch.zeros(2, 3), torch.tensor([0, 1])).shape == (2, 1, 8, 8)
    with pytest.raises(TypeError, match=r"decoder is of type NoneType.*both networks or none"):
        sa.CVAE("mlp", 3, 3, (1, 8, 8), encoder=Encoder())
    with pytest.raises(ValueError, match="'own' is not one of mlp, conv: give encoder="):
        sa.CVAE.from_state(own().to_state())


@pytest.mark.full
def test_an_audit_of_a_network_that_does_not_say_is_told_so(mine, gray, hardly_masked, monkeypatch):
    monkeypatch.setattr("sahelpers.attacks.gate.OWN_LABEL", 0.0)
    given = {"baseline": mine, "data": (labelled(3, 30), labelled(3, 30))}
    retrained = [trained(gray, seed, (2,)) for seed in (2, 3, 4)]
    report = sa.audit(mine, 2, SHORT, retrained=retrained, **given)
    assert "The baseline stands in the hidden model's place" in str(report)
    assert [finding.rung for finding in report.findings] == list(RUNGS)


# Models from elsewhere


FC = {
    "fc1": (512, 794), "fc2": (256, 512), "fc31": (8, 256), "fc32": (8, 256),
    "fc4": (256, 18), "fc5": (512, 256), "fc6": (784, 512),
}  # fmt: skip


def official(seed=0):
    """A state dict in the layout of the official code, of random numbers."""
    random = sa.seeded(seed)
    state = {f"{n}.bias": torch.randn(s[0], generator=random) for n, s in FC.items()}
    for name, size in FC.items():
        state[f"{name}.weight"] = torch.randn(size, generator=random) / size[1] ** 0.5
    return state


def by_hand(state, x, y, z):
    """Mean, log-variance and logits as the official code computes them."""
    layer = lambda name, h: h @ state[f"{name}.weight"].T + state[f"{name}.bias"]  # noqa: E731
    h = torch.relu(layer("fc2", torch.relu(layer("fc1", torch.cat([x.flatten(1), y], 1)))))
    g = torch.relu(layer("fc5", torch.relu(layer("fc4", torch.cat([z, y], 1)))))
    return layer("fc31", h), layer("fc32", h), layer("fc6", g)


def test_an_official_model_computes_the_same_here(tmp_path):
    state = official()
    x, z, c = noise(5, (1, 28, 28)), torch.randn(5, 8, generator=sa.seeded(1)), torch.arange(5)
    mean, log_var, logits = by_hand(state, x, torch.eye(10)[c], z)
    torch.save(state, tmp_path / "official.pt")
    for given in (state, tmp_path / "official.pt", str(tmp_path / "official.pt")):
        model = from_official(given)
        assert (model.arch, model.latent_dim, model.num_classes) == ("mlp", 8, 10)
        found = model.encode(x, c)
        torch.testing.assert_close(found[0], mean)
        torch.testing.assert_close(found[1], log_var)
        torch.testing.assert_close(model.decode_logits(z, c).flatten(1), logits)
    back = to_official(model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_a_model_trained_here_goes_out_and_comes_back(mnist):
    config = sa.BaselineConfig(epochs=1, latent_dim=8, batch_size=50)
    model = sa.train_baseline(mnist.take(500), mnist.take(50), config).model
    again = from_official(to_official(model))
    y = torch.arange(10)
    z = torch.randn((10, 8), generator=sa.seeded(0))
    assert torch.equal(again.decode(z, y), model.decode(z, y))
    fisher = sa.class_fishers(again, mnist, sa.FisherConfig(n_fisher_samples=50)).without(3)
    quick = sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, cooldown=2)
    result = sa.forget(again, fisher, 3, quick)
    assert result.forget_class == (3,)


def test_a_state_dict_of_a_module_saved_on_a_gpu_is_read(tmp_path):
    """A module's own state dict says more (versions of its layers), and where its tensors were."""
    state = official()
    theirs = nn.ModuleDict({name: nn.Linear(*state[f"{name}.weight"].T.shape) for name in FC})
    theirs.load_state_dict(state)
    torch.save(theirs.state_dict(), tmp_path / "cpu.pt")
    raw = (tmp_path / "cpu.pt").read_bytes()
    with (
        zipfile.ZipFile(io.BytesIO(raw)) as archive,
        zipfile.ZipFile(tmp_path / "gpu.pt", "w") as moved,
    ):
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            moved.writestr(name, content)
    for path in ("cpu.pt", "gpu.pt"):
        back = to_official(from_official(tmp_path / path))
        assert all(torch.equal(back[name], value) for name, value in state.items())


def test_what_goes_out_into_a_file_comes_back(tmp_path):
    """Two of its tensors are halves of one."""
    model = from_official(official())
    torch.save(to_official(model), tmp_path / "ours.pt")
    again = from_official(tmp_path / "ours.pt")
    assert all(torch.equal(a, b) for a, b in zip(weights_of(again), weights_of(model), strict=True))


def weights_of(model):
    return list(model.state_dict().values())


NO_STATES = {
    "empty": (b"", "it is empty"),
    "text": (b"no state", "it is a text file, which begins with 'no state'"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "it is a text file, which begins with 'version https://git-lfs",
    ),
    "umlauts": ("Gewichte: für später".encode(), "it is a text file, which begins with 'Gewichte"),
    "a page": (b"\n<!DOCTYPE html>\n<html><title>404</title>", r"it is a web page \(HTML\): open"),
    "an old page": (b"<HTML><BODY>Sign in</BODY></HTML>", r"it is a web page \(HTML\): open"),
    "a pickle": (pickle.dumps({"fc1.weight": [0.0]}), "it is a bare pickle, which could run code"),
    "a pickled class": (pickle.dumps(Path("x"), protocol=2), "it is a bare pickle, which could"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it is not an archive that torch.save wrote"),
    "half an archive": (b"PK\x03\x04 half an archive", "it is damaged, or no archive that torch"),
}


@pytest.mark.parametrize("name", NO_STATES)
def test_a_file_that_is_no_official_state_is_named(tmp_path, name):
    content, message = NO_STATES[name]
    (tmp_path / "theirs.pt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"theirs\.pt is no state dict: {message}") as caught:
        from_official(tmp_path / "theirs.pt")
    assert "weights_only" not in str(caught.value)
    assert caught.value.__suppress_context__  # nor does the traceback show torch's advice


def test_an_old_or_a_whole_model_is_named(tmp_path):
    """What `torch.save` wrote before release 1.6, and a model instead of its state dict."""
    path = tmp_path / "theirs.pt"
    torch.save(official(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"is no state dict: it is a bare pickle.* torch 1\.6"):
        from_official(path)
    torch.save(Encoder(), path)
    with pytest.raises(ValueError, match=r"is no state dict: it names \w+\.Encoder, and only"):
        from_official(path)
    np.savez(tmp_path / "theirs.npz", **{"fc1.weight": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"is no state dict: its member 'fc1.* does not belong"):
        from_official(tmp_path / "theirs.npz")


def test_a_path_without_a_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="is no state dict: it is a folder or a device"):
        from_official(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        from_official(tmp_path / "nowhere.pt")
    with (tmp_path / "hole.pt").open("wb") as stream:
        stream.truncate(LIMIT + 1)
    with pytest.raises(ValueError, match=f"is no state dict: it is larger than {LIMIT} bytes"):
        from_official(tmp_path / "hole.pt")


def test_official_states_that_do_not_fit_are_refused_by_name():
    state = official()
    for change, message in [
        ({"fc5.weight": None}, r"lacks \['fc5.weight'\]"),
        ({"fc7.bias": torch.zeros(3)}, r"has \['fc7.bias'\] besides"),
        (
            {"fc2.weight": state["fc2.weight"].T},
            r"fc2.weight .*\(512, 256\), which is trans",
        ),
        ({"fc6.bias": torch.zeros(783)}, r"fc6.bias has the shape \(783,\), not \(784,\)"),
        ({"fc4.bias": torch.full((256,), torch.inf)}, "holds NaN or infinite"),
        ({"fc1.bias": torch.zeros(512).long()}, "fc1.bias of type torch.int64 must be float"),
    ]:
        wrong = {k: v for k, v in (state | change).items() if v is not None}
        with pytest.raises(ValueError, match=message):
            from_official(wrong)
    with pytest.raises(TypeError, match=r"fc1\.bias is of type list"):
        from_official(state | {"fc1.bias": [0.0]})
    with pytest.raises(TypeError, match="state is of type int"):
        from_official(3)
    with pytest.raises(ValueError, match="arch='conv' has no official layout"):
        to_official(sa.CVAE("conv"))


# The whole chain


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("colour", marks=pytest.mark.full),
        "wide",
        pytest.param("many", marks=pytest.mark.full),
    ],
)
def test_the_whole_chain_on_other_images(kind, tmp_path, monkeypatch, hardly_masked):
    """Train, Fisher, forget, judge, audit with three retrained: small, it says nothing."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    data = {
        "colour": lambda: drawn.shapes(64),
        "wide": lambda: drawn.letters("ABC", (20, 28), 64),
        "many": lambda: drawn.letters(drawn.ALPHABET, (28, 28), 64),
    }[kind]()
    train, test = data.split(0.5)
    story = sa.Story(
        (train, test),
        baseline=sa.BaselineConfig(epochs=2, batch_size=20, latent_dim=3),
        fisher=sa.FisherConfig(n_fisher_samples=60),
        amnesia=sa.AmnesiaConfig(epochs_unl=1, replay_samples=320, batch_size=32, cooldown=2),
        judge=sa.JudgeConfig(epochs=1, batch_size=20),
    )
    result = story.forgotten(1)
    assert story.baseline.model.image_shape == data.image_shape
    latents = sa.fixed_latents(story.baseline.model, 5)
    verdict = sa.judge_samples(result.model, story.judges["open_set"], latents)
    assert verdict.argmax.shape == (data.num_classes, data.num_classes + 1)
    monkeypatch.setattr("sahelpers.attacks.gate.OWN_LABEL", 0.0)  # two passes learn nothing
    report = sa.audit(
        result.model,
        1,
        SHORT,
        baseline=story.baseline.model,
        retrained=[story.retrained(1, seed).model for seed in (42, 43, 44)],
        data=(train, test),
    )
    assert [finding.rung for finding in report.findings] == list(RUNGS)


def test_a_row_of_two_classes_has_the_verdict_on_each_in_their_order(monkeypatch, tmp_path):
    """The chain as the command runs it, on few images and with little effort."""
    monkeypatch.setenv("SA_CHECKPOINTS", str(tmp_path))
    monkeypatch.setitem(
        drawn.SETS, "few", (lambda: drawn.letters("ABCD", (14, 14), 160).split(), 2, 1, (2, 0))
    )
    monkeypatch.setattr(drawn, "LADDER", SHORT)
    told = {2: "erased", 0: "memory remains"}
    asked = []

    def audit(model, label, config, *, baseline, retrained, data):
        asked.append(label)
        assert all(not other.prior_mean[[0, 2]].any() for other in (model, *retrained))
        found = [SimpleNamespace(rung=rung, verdict=told[label]) for rung in RUNGS]
        return SimpleNamespace(findings=found)

    monkeypatch.setattr(sa, "audit", audit)
    row = drawn.chain("few")
    assert asked == [2, 0]
    assert list(row) == drawn.HEAD
    assert row["forgotten"] == "C, A"
    assert all(row[rung] == "erased, memory remains" for rung in RUNGS)
    assert 0 <= float(row["argmax after, %"]) <= 100


def test_the_table_is_what_was_kept():
    rows = json.loads((CHECKOUT / "results" / "your_data.json").read_text())
    text = (CHECKOUT / "results" / "your_data.md").read_text(encoding="utf-8")
    assert text == drawn.page(rows)
    assert set(rows) <= set(drawn.SETS)


def test_the_table_has_the_verdict_of_every_rung():
    row = {name: f"{k}." for k, name in enumerate(drawn.HEAD)}
    assert [name for name in drawn.HEAD if name in RUNGS] == list(RUNGS)
    text = drawn.page({"letters": row})
    assert f"| {' | '.join(row.values())} |\n" in text
    missing = [name for name in drawn.SETS if name != "letters"]
    assert f"\nNot run yet: {', '.join(missing)}.\n" in text


class Turned(SayingDecoder):
    """Its layers are registered in another order than that in which they run."""

    def __init__(self, classes=3, latent=3, width=8):
        super().__init__(classes, latent, width)
        last = self.last
        del self.last
        first = self.first
        del self.first
        self._modules = {"last": last, **self._modules, "first": first}


def test_first_and_last_layer_are_those_that_run_first_and_last(gray):
    model = own(SayingEncoder, Turned)
    layers = model.decoder_layers()
    assert layers[0] is model.decoder.first
    assert layers[-1] is model.decoder.last
    assert list(model.decoder.modules())[1] is model.decoder.last
    masked = sa.masked_model(model, 0, steps=1)
    moved = [
        name
        for name, before in model.decoder.named_parameters()
        if not torch.equal(before, masked.get_parameter(f"decoder.{name}"))
    ]
    assert sorted(moved) == ["label.weight", "last.bias", "last.weight"]  # the label is reset
    judges = {"closed_set": sa.Judge("closed_set", 3, (1, 8, 8)).eval()}
    curve = sa.relearn(model, 0, data=gray[1], judges=judges, steps=1, over="first layer")
    for name, before in model.decoder.named_parameters():
        same = torch.equal(before, curve.model.get_parameter(f"decoder.{name}"))
        assert same is (not name.startswith("first")), name


class Normed(SayingDecoder):
    """With batch norm, whose running means move in training mode."""

    def __init__(self, classes=3, latent=3, width=8):
        super().__init__(classes, latent, width)
        self.norm = nn.BatchNorm1d(latent)

    def forward(self, z, y):
        return super().forward(self.norm(z), y)


@pytest.mark.parametrize("change", [{"source": "model_sample"}, {"estimator": "decoder"}])
def test_a_model_in_training_mode_is_not_changed_by_drawing_from_it(change):
    model = own(SayingEncoder, Normed).train()
    before = copy.deepcopy(model.state_dict())
    sa.diagonal_fisher(model, None, sa.FisherConfig(n_fisher_samples=6, **change))
    few = sa.ProbeConfig.prototype(n_restarts=1, steps=1)
    sa.invert_prototypes(model, 0, few, baseline=model)
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True)
    )
    assert model.training


def test_measuring_a_model_in_training_mode_rests_it_and_leaves_it_as_it_was(gray):
    """Each measurement is that of the model in evaluation mode, and changes nothing."""
    model = own(SayingEncoder, Normed).train()
    before, data = copy.deepcopy(model.state_dict()), gray[1]
    latents = sa.fixed_latents(model, 5)
    few, labels = data.images[:4], data.labels[:4]
    measured = {
        "sample": lambda m: m.sample(labels, generator=sa.seeded(0)),
        "between labels": lambda m: sa.interpolate_labels(m, latents.z[:4], 0, 1, 3),
        "through": lambda m: sa.reconstruct(m, few),
        "drawn": lambda m: sa.draw_images(m, latents),
        "nelbo": lambda m: sa.dataset_negative_elbo(m, data),
        "bounds": lambda m: sa.label_bounds(m, few, 2),
        "directions": live.principal_directions,
        "bound": lambda m: sa.iwae_bound(m, few, labels, 2, generator=sa.seeded(0)),
    }
    for name, measure in measured.items():
        found = measure(model)
        assert all(module.training for module in model.modules()), name
        assert all(torch.equal(a, before[k]) for k, a in model.state_dict().items()), name
        assert torch.equal(found, measure(copy.deepcopy(model).eval())), name


def test_a_baseline_that_draws_other_images_is_refused_as_a_source_of_prototypes():
    model, other = own(SayingEncoder, SayingDecoder), sa.CVAE("mlp", 3, 3, (3, 8, 8))
    with pytest.raises(ValueError, match=r"baseline draws images \(3, 8, 8\) on cpu, the model"):
        sa.invert_prototypes(model, 0, sa.ProbeConfig.prototype(steps=1), baseline=other)


def test_other_images_than_the_models_are_not_replayed(gray):
    model = own(SayingEncoder, SayingDecoder)
    fisher = sa.diagonal_fisher(model, gray[0], sa.FisherConfig(n_fisher_samples=30))
    for other in (labelled(3, 10, (3, 8, 8)), labelled(4, 10)):
        with pytest.raises(ValueError, match=r"real_images has .* the model 3 classes"):
            sa.forget(model, fisher, 0, real_images=other)


def test_the_default_is_scaled_to_the_images_wherever_it_is_chosen(gray, monkeypatch):
    model = own(SayingEncoder, SayingDecoder)
    fisher = sa.diagonal_fisher(model, gray[0], sa.FisherConfig(n_fisher_samples=30))
    asked = []

    class Seen(Exception):
        pass

    def see(frozen, fisher, gone, config, *more):
        asked.append(config)
        raise Seen

    monkeypatch.setattr("sahelpers.amnesia.Objective", see)
    for more in ({}, {"real_images": gray[0]}):
        with pytest.raises(Seen):
            sa.forget(model, fisher, 0, **more)
    usual = sa.AmnesiaConfig.for_values(64)
    assert asked[0] == sa.Story(gray).config.amnesia == usual
    assert asked[1].push == usual.push != sa.AmnesiaConfig().push
    assert asked[1].replay_form == "elbo"
