"""Which fields of a question are wrong, in the caller's own terms: proto paths and words that never repeat a value."""

from collections.abc import Iterator, Sequence

from pydantic import TypeAdapter, ValidationError

from services.chassis.errors import FieldViolation
from services.gateway.question import LABEL_NAME, MOST_CONVERSATION_BYTES, MOST_MESSAGES, Question
from services.gateway.text_rules import utf8_length
from services.models.conversation import Role

_CHECK = TypeAdapter(Question)

_WORDS = {
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
}
"""Our words for pydantic's own error types; the others are ours from the start."""


def violations_of(question: Question) -> list[FieldViolation]:
    """Return everything that is wrong with a question by itself, before any profile is known; empty where nothing is."""
    return [*_field_violations(question), *_conversation_violations(question)]


def _field_violations(question: Question) -> Iterator[FieldViolation]:
    try:
        _CHECK.validate_python(question)
    except ValidationError as refusal:
        for error in refusal.errors(include_url=False, include_input=False):
            words = _WORDS.get(error["type"])
            yield FieldViolation(
                field=_path(error["loc"]),
                description=words.format(**error.get("ctx", {})) if words else error["msg"],
            )


def _path(location: Sequence[str | int]) -> str:
    """Return pydantic's location as a proto path. A label's name is the caller's text, so only a valid one is repeated."""
    first, *rest = location
    path = str(first)
    if first == "labels":
        name = str(rest[0]) if rest else ""
        return f'{path}["{name}"]' if LABEL_NAME.fullmatch(name) else path
    for step in rest:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path


def _conversation_violations(question: Question) -> Iterator[FieldViolation]:
    if question.messages:
        for name in ("prompt", "system"):
            if getattr(question, name):
                yield FieldViolation(field=name, description="must not be set together with messages")
        # Of too many messages the last ones were not read.
        if len(question.messages) <= MOST_MESSAGES and question.messages[-1].role in {Role.SYSTEM, Role.ASSISTANT}:
            yield FieldViolation(field=f"messages[{len(question.messages) - 1}].role", description="must be ROLE_USER, because it is the last message")
        if sum(utf8_length(message.text) for message in question.messages) > MOST_CONVERSATION_BYTES:
            yield FieldViolation(field="messages", description=f"hold more than {MOST_CONVERSATION_BYTES} bytes of UTF-8 together")
    elif not question.prompt:
        yield FieldViolation(field="prompt", description="is required where there are no messages")
