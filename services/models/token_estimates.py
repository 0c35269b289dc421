"""Tokens of a text, estimated without the model's tokenizer and without the network, for reservations that are settled with the real count afterwards.

The usual rule for English is four characters to a token (OpenAI's help page "What are tokens and how to count them?"). It falls far short for figures, code and
other scripts, so characters are counted by kind, with rates that were held against the tokenizer of SmolLM2, whose small vocabulary makes many tokens:

    small letters, blanks        3 to a token
    capital letters              2 to a token
    figures, marks, controls     1 to a token
    others                       1 token for a character of 2 bytes in UTF-8, 2 for one of 3, 3 for one of 4

For prose and code that is a third to a half above the count, for long runs of blanks several times it. It falls short for random letters and figures, such
as hashes, and for scripts that a tokenizer was not made for.
"""

from collections.abc import Iterable
from string import ascii_lowercase, ascii_uppercase

from services.models.conversation import Message

MESSAGE_TOKENS = 6
"""Around each message: a chat template's marks, the role and line ends; ChatML takes 5."""
PRIMING_TOKENS = 4
"""Before the answer: the same marks, opened for the assistant."""

_SMALL = f"{ascii_lowercase} \t\r\n".encode()
_CAPITAL = ascii_uppercase.encode()
_OTHER_ASCII = bytes(set(range(128)) - set(_SMALL) - set(_CAPITAL))


def estimate_text(text: str) -> int:
    """Return about how many tokens a text has; more often too many than too few, and none only for the empty text."""
    encoded = text.encode("utf-8", "replace")
    # Deleting bytes and comparing lengths counts a megabyte in a few milliseconds, which a loop over characters does not.
    small, capital, marks = (len(encoded) - len(encoded.translate(None, kind)) for kind in (_SMALL, _CAPITAL, _OTHER_ASCII))
    # An ASCII character has one byte, so it leaves nothing in this difference.
    beyond = len(encoded) - len(text)
    sixths = 2 * small + 3 * capital + 6 * (marks + beyond)
    return -(-sixths // 6)


def estimate_messages(messages: Iterable[Message]) -> int:
    """Return about how many tokens a conversation has in the prompt that a chat template makes of it."""
    return PRIMING_TOKENS + sum(MESSAGE_TOKENS + estimate_text(message.text) for message in messages)
