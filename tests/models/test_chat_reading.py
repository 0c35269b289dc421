"""Reading completions: no field is what it should be, and nothing raises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.answer_text import AnswerText
from services.models.chat_reading import MOST_TOKENS, ChatReading
from services.models.outcomes import Outcome

KEYS = (
    "choices",
    "index",
    "delta",
    "message",
    "text",
    "content",
    "type",
    "refusal",
    "finish_reason",
    "error",
    "code",
    "object",
    "usage",
    "x_groq",
    "id",
    "model",
)
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens", "cost", "metadata", "reasons", "innererror", "status")
words = st.sampled_from(["text", "stop", "error", "content_filter", "length", "server_error", "429", "a", "\ud800", ""])
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from([0, 1, 5, 429, 10**30]), st.floats(), words)
documents = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS + COUNTS), inner, max_size=5)), max_leaves=12
)
choices = st.fixed_dictionaries({}, optional=dict.fromkeys(("index", "delta", "message", "text", "finish_reason", "error"), documents))
chunks = st.fixed_dictionaries(
    {"choices": st.one_of(documents, st.lists(choices, max_size=2))}, optional=dict.fromkeys(("error", "object", "usage", "x_groq", "id", "model"), documents)
)


def reading() -> tuple[ChatReading, list[str]]:
    """Return a reading and what its listener hears."""
    heard: list[str] = []
    return ChatReading(AnswerText(byte_limit=1000, on_text=heard.append)), heard


@given(st.lists(st.tuples(st.sampled_from(["data", "error", "whole"]), st.one_of(documents, chunks)), max_size=4))
def test_no_document_raises(parts: list[tuple[str, object]]) -> None:
    """Any JSON in any place becomes an answer or a refusal; what is kept of it is valid and bounded."""
    read, heard = reading()
    for kind, document in parts:
        text = json.dumps(document)
        match kind:
            case "data":
                read.read_data(text)
            case "error":
                read.read_error_event(text)
            case "whole":
                read.read_whole(text.encode())
    refused = read.conclude()
    assert "".join(heard) == str(read.text)
    str(read.text).encode()
    assert read.usage is None or 0 <= read.usage.cached_input_tokens <= read.usage.input_tokens <= MOST_TOKENS
    assert read.usage is None or 0 <= read.usage.output_tokens <= MOST_TOKENS
    assert (read.response_id + read.response_model + read.finish_reason).isascii()
    assert refused is not None or str(read.text).strip()
    assert refused is None or (refused.outcome is not Outcome.OK and refused.reason.isascii())


@pytest.mark.parametrize("index", [[], {}, "0", 1, 1.5])
def test_a_choice_of_another_place_is_none_of_ours(index: object) -> None:
    """Only the first choice, or one that names no place, is read; a place may be of any type."""
    read, _ = reading()
    read.read_data(json.dumps({"choices": [{"index": index, "delta": {"content": "no"}, "finish_reason": "stop"}]}))
    assert (str(read.text), read.done) == ("", False)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"code": 429}', "http_429"),
        ('{"error": {"code": 429}}', "http_429"),
        ('{"error": "overloaded_error"}', "http_529"),
        ('{"type": "error", "error": {"type": "overloaded_error"}}', "http_529"),
        ('{"message": "?"}', "provider_error"),
        ("{}", "provider_error"),
        ("[]", "malformed_json"),
        ("oops", "malformed_json"),
    ],
)
def test_error_events(data: str, reason: str) -> None:
    """An event that is named an error is one whatever it holds, and its code counts with or without a key around it."""
    read, _ = reading()
    read.read_error_event(data)
    refused = read.conclude()
    assert refused is not None
    assert refused.reason == reason


@pytest.mark.parametrize("ending", ['{"finish_reason": "stop", "delta": {}}', None])
def test_nothing_malformed_spoils_a_whole_answer(ending: str | None) -> None:
    """Once the provider has said that the answer is whole, a broken event takes nothing from it; before that it does."""
    for whole in (True, False):
        read, _ = reading()
        read.read_data('{"choices": [{"delta": {"content": "Hello"}}]}')
        if whole:
            read.read_data("[DONE]" if ending is None else f'{{"choices": [{ending}]}}')
        read.read_data('{"usage": {"prompt')
        refused = read.conclude()
        assert (refused is None) == whole
        assert str(read.text) == "Hello"


def test_the_first_refusal_stands() -> None:
    """What follows an error does not hide it."""
    read, _ = reading()
    read.read_data('{"error": {"code": 401}}')
    read.read_data('{"error": {"code": 500}}')
    read.read_data("oops")
    refused = read.conclude()
    assert refused is not None
    assert refused.reason == "http_401"


@pytest.mark.parametrize("body", ["{}", '{"detail": "Not Found"}', '{"error": {}}', '{"error": null}'])
def test_a_document_without_choices_is_no_completion(body: str) -> None:
    """A 200 that holds some other object than a completion is a failure: an endpoint that always sends it never works."""
    read, _ = reading()
    read.read_whole(body.encode())
    refused = read.conclude()
    assert refused is not None
    assert (refused.outcome, refused.reason) == (Outcome.PROVIDER_FAILED, "no_completion")
