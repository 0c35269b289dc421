"""One line of a batch's input."""

import json
from dataclasses import replace

import pytest

from services.cli.batch_line import LineRefused, Prompt, prompt_of
from services.cli.connection import Connection
from tests.support.batches import TEMPLATE


def _prompt(line: object, number: int = 1, **options: object) -> Prompt:
    return prompt_of(json.dumps(line).encode(), number, replace(TEMPLATE, **options))  # type: ignore[arg-type] # a test's own words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON (character 1)"),
        (b"\xff", "is not UTF-8 (byte 0)"),
        (b"[" * 100_000, "is more than can be read"),
        (b'{"prompt": "a", "quorum": ' + b"9" * 5000 + b"}", "is more than can be read"),
        (b'{"prompt": "a", "temperature": NaN}', "is not JSON (character 0)"),
        (b'["secret"]', "is not a JSON object"),
        (b'{"prompt": "secret", "prompt": "b"}', "has a field twice"),
        (b"{}", "prompt: is missing"),
        (b'{"prompt": ""}', "prompt: String should have at least 1 character"),
        (b'{"prompt": 7}', "prompt: Input should be a valid string"),
        (b'{"prompt": "a", "id": 7}', "id: Input should be a valid string"),
        (b'{"prompt": "a", "id": ""}', "id: String should have at least 1 character"),
        (b'{"prompt": "a", "promt": "secret", "x": 1}', "promt: is not known; x: is not known"),
        (b'{"prompt": "a", "quorum": 3000000000}', "quorum: Input should be less than or equal to 2147483647"),
        (b'{"prompt": "a", "labels": {"k": 1}}', "labels.k: Input should be a valid string"),
        (b'{"prompt": "a", "parameters": {"n": 1e999}}', "parameters: must hold finite numbers only"),
    ],
)
def test_a_bad_line_says_all_that_is_wrong(content: bytes, words: str) -> None:
    """By the names of its fields, and without what stands in them."""
    with pytest.raises(LineRefused) as caught:
        prompt_of(content, 1, TEMPLATE)
    assert str(caught.value) == words


def test_half_a_character_is_refused() -> None:
    """No request can hold it, wherever it stands."""
    for line in ({"prompt": "\ud800"}, {"prompt": "a", "id": "\ud800"}, {"prompt": "a", "members": ["\ud800"]}, {"prompt": "a", "parameters": {"n": "\ud800"}}):
        with pytest.raises(LineRefused, match=r"nicode"):
            _prompt(line)


def test_too_long_a_request_is_refused() -> None:
    """Before anything is asked."""
    with pytest.raises(LineRefused, match="longer than a message may be"):
        _prompt({"prompt": "a" * (8 << 20)})


def test_an_id_is_the_line_number_unless_given() -> None:
    """As text."""
    assert (_prompt({"prompt": "a"}, 12).id, _prompt({"prompt": "a", "id": "x"}).id) == ("12", "x")


def test_the_hash_tells_any_difference_and_nothing_else() -> None:
    """How a line is written, where it stands and where it is asked changes nothing; what is asked, and how, does."""
    one = prompt_of(b'{"prompt": "\xc3\xa9", "parameters": {"a": 1, "b": 2}}', 1, TEMPLATE)
    same = prompt_of(
        b' {"parameters" : {"b":2.0,"a":1},"prompt":"\\u00e9", "id": "other"}\r\n',
        9,
        replace(TEMPLATE, gateway=Connection(address="other:1"), timeout_seconds=1.0),
    )
    assert one.sha256 == same.sha256
    lines = [{"prompt": "b"}, *({"prompt": "a", **more} for more in ({}, {"system": "s"}, {"labels": {"k": "v"}}, {"quorum": 1}, {"temperature": 0}))]
    hashes = {_prompt(line).sha256 for line in lines} | {_prompt({"prompt": "a"}, max_cost_usd=1.0).sha256, _prompt({"prompt": "a"}, profile="p").sha256}
    assert len(hashes) == len(lines) + 2


def test_the_order_of_names_is_no_difference() -> None:
    """However many there are."""
    names = [f"name{number}" for number in range(200)]
    one, other = ({"prompt": "a", "parameters": dict.fromkeys(order, 1)} for order in (names, names[::-1]))
    assert _prompt(one).sha256 == _prompt(other).sha256


def test_the_request_id_is_that_of_a_prompt_in_any_run() -> None:
    """Two prompts that ask the same have two."""
    one, again, other = (_prompt({"prompt": "a", "id": name}).request.request_id for name in ("x", "x", "y"))
    assert one == again != other
    assert len(one) == 64
    assert int(one, 16)


def test_what_a_line_says_empty_stands_above_the_options_too() -> None:
    """Null does not: it says nothing."""
    request = _prompt({"prompt": "a", "system": "", "profile": None}, system="s", profile="p").request
    assert (request.system, request.profile) == ("", "p")
