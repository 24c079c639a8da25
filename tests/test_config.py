from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sahelpers as sa

CONFIGS = [sa.BaselineConfig, sa.FisherConfig, sa.AmnesiaConfig, sa.ProbeConfig, sa.JudgeConfig]
NUMBERS = [(c, f) for c in CONFIGS for f in fields(c) if f.metadata.get("low") is not None]
WORDS = [(c, f) for c in CONFIGS for f in fields(c) if f.metadata.get("choices") is not None]


@pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=lambda x: getattr(x, "name", ""))
def test_every_number_is_held_to_its_range(kind, field):
    low, high = field.metadata["low"], field.metadata["high"]
    for good in (low, high):
        assert getattr(kind(**{field.name: type(field.default)(good)}), field.name) == good
    for bad in (low - 1, high * 2 + 1, float("nan"), float("inf"), "3", None, True):
        with pytest.raises(ValueError, match=field.name) as caught:
            kind(**{field.name: bad})
        assert repr(bad) in str(caught.value)
        assert f"{low:g}" in str(caught.value)


@pytest.mark.parametrize(("kind", "field"), WORDS, ids=lambda x: getattr(x, "name", ""))
def test_every_word_is_one_of_the_choices(kind, field):
    for good in field.metadata["choices"]:
        kind(**{field.name: good})
    for bad in ("", "cnn", None, 3):
        with pytest.raises(ValueError, match=field.name):
            kind(**{field.name: bad})


@pytest.mark.parametrize(("kind", "field"), NUMBERS + WORDS, ids=lambda x: getattr(x, "name", ""))
def test_every_knob_is_explained(kind, field):
    assert len(field.metadata["help"]) > 3


def test_a_float_field_takes_a_whole_number_but_a_whole_field_no_fraction():
    assert sa.AmnesiaConfig(gamma=2).gamma == 2
    with pytest.raises(ValueError, match=r"epochs=2\.5 must be a whole number"):
        sa.BaselineConfig(epochs=2.5)


def test_fingerprint_changes_with_any_field_and_with_nothing_else():
    base = sa.AmnesiaConfig()
    assert sa.fingerprint(base) == sa.fingerprint(sa.AmnesiaConfig())
    seen = {sa.fingerprint(base)}
    for field in fields(base):
        value = getattr(base, field.name)
        words = {"surrogate": "noise", "forget_form": "both", "replay_form": "both"}
        other = words.get(field.name, 1.5 if field.name == "z_reach" else None)
        other = other or (0.25 if isinstance(value, float) else value + 1)
        seen.add(sa.fingerprint(replace(base, **{field.name: other})))
    assert len(seen) == 1 + len(fields(base))


@pytest.mark.parametrize("bad", [11, -1, 10, "three", "3", 3.0, None, True, (3, 10), (3, "x"), ()])
def test_classes_that_do_not_exist_are_named(bad):
    with pytest.raises(ValueError, match="0 to 9"):
        sa.check_classes(bad)


def test_all_classes_cannot_be_forgotten():
    with pytest.raises(ValueError, match="at least one must be kept"):
        sa.check_classes(range(10))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(lambda c: len(set(c)) < 10))
def test_classes_come_back_sorted_and_once(classes):
    assert sa.check_classes(classes) == tuple(sorted(set(classes)))
    assert sa.check_classes(classes[0]) == (classes[0],)
