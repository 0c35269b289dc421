"""API keys: their form, and that nothing but a key has it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.api_keys import HIDDEN, LENGTH, PREFIX, is_key, new_key, sha256_of, without_keys, without_secrets

SECRETS = st.binary(min_size=32, max_size=32)


@given(SECRETS, SECRETS)
def test_each_secret_makes_a_key_of_its_own(one: bytes, other: bytes) -> None:
    """Of one form, which scanners know; two secrets never make the same."""
    key = new_key(lambda count: one[:count])
    assert is_key(key)
    assert key.startswith(PREFIX)
    assert len(key) == LENGTH == 52
    assert (key == new_key(lambda count: other[:count])) == (one == other)


def test_keys_are_random() -> None:
    """Without a source of one's own the system's is asked."""
    assert len({new_key() for _ in range(100)}) == 100


@given(SECRETS, st.integers(0, LENGTH - 1), st.characters(exclude_categories=["Cs"]))
def test_a_changed_figure_makes_another_key_or_none(secret: bytes, place: int, letter: str) -> None:
    """Whatever else has the form of a key is kept as another one, and its beginning is never another."""
    key = new_key(lambda count: secret[:count])
    other = key[:place] + letter + key[place + 1 :]
    if is_key(other) and other != key:
        assert sha256_of(other) != sha256_of(key)
        assert place >= len(PREFIX)


@given(SECRETS, st.sampled_from(["", " ", "\n", "=", "\0", "A"]), st.sampled_from(["", " ", "\n", "=", "\0", "A"]))
def test_what_stands_around_a_key_makes_it_none(secret: bytes, before: str, after: str) -> None:
    """Not a space, not a line's end."""
    key = new_key(lambda count: secret[:count])
    assert is_key(before + key + after) == (before == after == "")


def test_what_is_kept_is_the_hash_of_the_whole_text() -> None:
    """As anybody can make it with sha256sum."""
    key = new_key(bytes)
    assert key == "ensemble_" + "A" * 43
    assert sha256_of(key) == hashlib.sha256(key.encode()).hexdigest()


@given(SECRETS, st.text(max_size=20), st.text(max_size=20), st.integers(0, 11))
def test_a_key_is_hidden_wherever_it_stands(secret: bytes, before: str, after: str, cut: int) -> None:
    """Also one that lost its end; nothing else is."""
    key = new_key(lambda count: secret[:count])
    hidden = without_keys(before + key[: LENGTH - cut] + after)
    assert key[: LENGTH - cut] not in hidden
    assert HIDDEN in hidden
    assert key.upper() not in without_keys(f"NAME_{key.upper()}")
    assert without_keys("profiles.ensemble_of_small_models.members[2]") == "profiles.ensemble_of_small_models.members[2]"


@pytest.mark.parametrize(
    "secret", ["sk-or-v1-0123456789abcdef0123", "sk-proj-AbCdEfGhIjKlMnOpQr", "hf_AbCdEfGhIjKlMnOpQr", "9f86d081884c7d659a2f", "AKIA0123456789ABCDEF"]
)
def test_what_looks_like_anybodys_secret_is_hidden(secret: str) -> None:
    """By how it begins, or because no word has so many letters and figures in a row; of whatever case."""
    for text in (secret, secret.upper(), secret.lower()):
        assert without_secrets(f'providers["{text}"].kind') == 'providers["…"].kind'
    assert without_secrets(f"sk-{secret}").endswith("…")


@pytest.mark.parametrize(
    "name", ["gpt-4.1-mini-2025-04-14", "meta-llama-3.1-405b-instruct-turbo", "task-force-of-small-models", "straggler_grace_seconds", "20251231235959000000"]
)
def test_a_name_is_no_secret(name: str) -> None:
    """However long it is."""
    assert without_secrets(name) == name
