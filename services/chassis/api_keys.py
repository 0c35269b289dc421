"""API keys: what one looks like, how one is made, and what is kept of it.

    ensemble_ + 43 characters of base64url, which are 32 random bytes

By its beginning a scanner for leaked secrets finds a key wherever it was left. What is kept is SHA-256 of its whole text, the beginning included: that is
enough, because nobody guesses 256 random bits from their hash, however fast it is.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Callable

PREFIX = "ensemble_"
RANDOM_BYTES = 32
LENGTH = len(PREFIX) + 43

# The last character stands for four bits alone, so only every fourth of the alphabet can be one: no two texts are the same 32 bytes.
_KEY = re.compile(r"ensemble_[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_ALIKE = re.compile(r"ensemble_[a-z0-9_-]{32,}", re.IGNORECASE)
# Other people's keys: those that begin as providers' do, and a long run of letters and figures that is no word.
_OTHERS = re.compile(
    r"(?<![a-z0-9])(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|ghp|r8)[_-][a-z0-9_-]{16,}"
    r"|(?<![a-z0-9])(?=[a-z0-9]*[a-z])(?=(?:[a-z]*[0-9]){4})[a-z0-9]{20,}",
    re.IGNORECASE,
)
HIDDEN = "ensemble_…"
"""Stands for a key in what is told to people."""
HIDDEN_OTHER = "…"
"""Stands for what may be somebody else's key."""


def new_key(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a key that nobody else has."""
    return PREFIX + base64.urlsafe_b64encode(random_bytes(RANDOM_BYTES)).rstrip(b"=").decode()


def is_key(text: str) -> bool:
    """Whether a text has the form of a key."""
    return len(text) == LENGTH and _KEY.fullmatch(text) is not None


def sha256_of(key: str) -> str:
    """Return what is kept of a key: 64 lower-case hexadecimal figures."""
    return hashlib.sha256(key.encode()).hexdigest()


def without_keys(text: str) -> str:
    """Return a text with everything in it that could be a key of ours, or most of one, hidden; whatever its case, for a variable's name has none."""
    return _ALIKE.sub(HIDDEN, text)


def without_secrets(text: str) -> str:
    """Return a text without keys, nor anything else that could well be a secret: not for texts whose hashes and ids are needed."""
    return _OTHERS.sub(HIDDEN_OTHER, without_keys(text))
