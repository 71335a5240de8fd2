"""Words that have one meaning everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.vocabulary import FACES, PAPERS, PROFILES, check_one_of


@pytest.mark.parametrize("words", [PAPERS, PROFILES, FACES])
def test_words_of_the_vocabulary_are_accepted_and_given_back(words):
    assert [check_one_of("word", word, words) for word in words] == list(words)


def test_the_message_names_argument_value_choices_and_the_nearest():
    with pytest.raises(ReplicateError) as raised:
        check_one_of("faces", "synthetik", FACES)
    assert (
        str(raised.value)
        == "faces: got 'synthetik', expected one of synthetic, real. Did you mean 'synthetic'?"
    )


def test_nothing_is_suggested_where_nothing_is_near():
    with pytest.raises(ReplicateError) as raised:
        check_one_of("faces", "xyz", FACES)
    assert str(raised.value) == "faces: got 'xyz', expected one of synthetic, real."


@pytest.mark.parametrize("value", ["CPU", " cpu", "", None, 3])
def test_a_word_has_one_spelling(value):
    with pytest.raises(ReplicateError, match="profile: got "):
        check_one_of("profile", value, PROFILES)


@given(st.text())
def test_only_the_vocabulary_passes(word):
    if word in PROFILES:
        assert check_one_of("profile", word, iter(PROFILES)) == word
    else:
        with pytest.raises(ReplicateError):
            check_one_of("profile", word, iter(PROFILES))
