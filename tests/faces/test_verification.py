"""Verification splits: people disjoint, templates disjoint, pairs labelled as the identities say."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces import protocols
from replicate.faces.verification import (
    DIFFERENT_PER_SAME,
    VerificationSplit,
    from_comparisons,
    from_folds,
    synthetic_templates,
)
from replicate.vocabulary import PROFILES


def identities(people, images):
    """`people` people with `images` images each, in a shuffled order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(people), images))


def person_of(split, identity):
    return np.array([identity[faces[0]] for faces in split.templates])


@given(
    counts=st.lists(st.integers(1, 7), min_size=3, max_size=25),
    seed=st.integers(0, 2**32),
    names=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_synthetic_splits_keep_their_promises(counts, seed, names):
    identity = np.repeat(np.arange(len(counts)), counts)
    if names:
        identity = np.array([f"person {number}" for number in identity])
    try:
        splits = synthetic_templates(identity, seed=seed, splits=3)
    except ReplicateError:
        assume(min(counts) > 1)  # refused because some split has only single images
        raise
    for split in splits:
        person = person_of(split, identity)
        tested = np.concatenate(split.templates)
        assert len(np.unique(tested)) == len(tested)  # templates are disjoint
        assert not set(identity[split.train]) & set(person)  # people are disjoint
        assert len(split.train) + len(tested) == len(identity)  # every face has its place
        for faces, someone in zip(split.templates, person, strict=True):
            assert len(faces) >= 1 and (identity[faces] == someone).all()
        np.testing.assert_array_equal(split.same, person[split.pairs[:, 0]] == person[split.pairs[:, 1]])
        assert (split.pairs[:, 0] < split.pairs[:, 1]).all()
        assert len(np.unique(split.pairs, axis=0)) == len(split.pairs)
        of_one = np.unique(person, return_counts=True)[1]
        assert split.same.sum() == (of_one * (of_one - 1) // 2).sum()  # all same pairs
        assert of_one.max() <= 4


@pytest.mark.parametrize("people,training", [(500, 333), (50, 33), (3, 1)])
def test_share_of_training_people(people, training):
    identity = identities(people, 4)
    for split in synthetic_templates(identity, seed=1, splits=2):
        assert len(np.unique(identity[split.train])) == training
        assert len(np.unique(person_of(split, identity))) == people - training


def test_ten_splits_that_the_seed_determines():
    identity = identities(30, 5)
    splits, again = synthetic_templates(identity, seed=7), synthetic_templates(identity, seed=7)
    assert len(splits) == 10
    for one, two in zip(splits, again, strict=True):
        np.testing.assert_array_equal(one.train, two.train)
        np.testing.assert_array_equal(one.pairs, two.pairs)
        assert all(np.array_equal(a, b) for a, b in zip(one.templates, two.templates, strict=True))
    first_of_three = synthetic_templates(identity, seed=7, splits=3)[0]
    np.testing.assert_array_equal(first_of_three.pairs, splits[0].pairs)
    assert not np.array_equal(splits[0].train, splits[1].train)
    assert not np.array_equal(splits[0].train, synthetic_templates(identity, seed=8)[0].train)


def test_rate_of_different_pairs():
    (split,) = synthetic_templates(identities(200, 6), seed=2, splits=1)
    same = int(split.same.sum())
    assert (~split.same).sum() == round(DIFFERENT_PER_SAME * same)
    (few,) = synthetic_templates(identities(200, 6), seed=2, splits=1, different_per_same=1)
    assert few.same.mean() == 0.5


def test_templates_of_one_and_of_several_images():
    (split,) = synthetic_templates(identities(60, 8), seed=0, splits=1)
    sizes = {len(faces) for faces in split.templates}
    assert 1 in sizes and max(sizes) > 2


@pytest.mark.parametrize(
    "identity,message", [([0, 0, 1, 1], "2 people, expected at least 3"), ([0, 1, 2], "has two images")]
)
def test_too_few_people_or_images(identity, message):
    with pytest.raises(ReplicateError, match=message):
        synthetic_templates(np.array(identity), seed=0)


def test_splits_from_folds():
    fold = np.array([0, 0, 0, 1, 1, 1])
    pairs = np.array([[0, 1], [2, 0], [4, 3]])
    zero, one = from_folds(fold, pairs, np.array([True, False, True]), np.array([0, 0, 1]))
    assert zero.train.tolist() == [3, 4, 5] and one.train.tolist() == [0, 1, 2]
    assert [faces.tolist() for faces in zero.templates] == [[0], [1], [2]]
    assert zero.pairs.tolist() == [[0, 1], [2, 0]] and zero.same.tolist() == [True, False]
    assert [faces.tolist() for faces in one.templates] == [[3], [4]] and one.pairs.tolist() == [[1, 0]]


IDENTITY = np.array([5, 6, 6, 7, 7, 5])
TEMPLATES = np.array([[40, 3], [10, 1], [40, 4], [20, 2]])


def test_split_from_comparisons():
    split = from_comparisons("1", np.array([0, 5]), TEMPLATES, np.array([[10, 20], [40, 10]]), IDENTITY)
    assert [faces.tolist() for faces in split.templates] == [[1], [2], [3, 4]]
    assert split.pairs.tolist() == [[0, 1], [2, 0]] and split.same.tolist() == [True, False]


@pytest.mark.parametrize(
    "train,templates,comparisons,message",
    [
        ([0], TEMPLATES, [[10, 30]], "template 30 is compared but has no faces"),
        ([0], [[10, 1], [10, 3]], [[10, 10]], "template 10 shows 2 people"),
        ([1], [[10, 2], [20, 3]], [[10, 20]], "person 6 is in training and in test"),
        ([0], TEMPLATES, [[10, 10]], "with itself"),
        ([0], np.zeros((0, 2), int), [[10, 20]], "template 10 is compared"),
    ],
)
def test_contradictory_protocols_are_refused(train, templates, comparisons, message):
    with pytest.raises(ReplicateError, match=message):
        from_comparisons("1", np.array(train), np.array(templates), np.array(comparisons), IDENTITY)


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"templates": (np.array([0]), np.array([], int))}, "no faces"),
        ({"same": np.array([True, False])}, r"expected \(2, 2\)"),
        ({"pairs": np.array([[0, 2]])}, "outside 0 to 1"),
        ({"pairs": np.array([[-1, 0]])}, "outside 0 to 1"),
        ({"train": np.array([1])}, "training face is in a template"),
    ],
)
def test_impossible_splits_are_refused(changes, message):
    fields = {
        "name": "x",
        "train": np.array([5]),
        "templates": (np.array([0]), np.array([1, 2])),
        "pairs": np.array([[0, 1]]),
        "same": np.array([False]),
    }
    VerificationSplit(**fields)
    with pytest.raises(ReplicateError, match=f"verification split x: .*{message}"):
        VerificationSplit(**(fields | changes))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_people_of_the_synthetic_protocol_can_be_verified_at_every_profile(profile):
    _, split = protocols.get("janus", "all")
    count = protocols.synthetic_count("janus", "all", profile)
    identity = np.array([protocols.person_of(split, index) for index in range(count)])
    for made in synthetic_templates(identity, seed=0):
        assert made.same.any() and not made.same.all()
