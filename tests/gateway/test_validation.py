"""Which fields of a question are wrong."""

import math
from dataclasses import replace

import pytest

from services.gateway.question import AskedGeneration, AskedHedge, AskedMember, AskedMessage, AskedOptions, AskedRefiner, AskedRetry, Question
from services.gateway.validation import violations_of

MIB = 1 << 20


def told(question: Question) -> list[tuple[str, str]]:
    """Return the violations as pairs of path and words."""
    return [(violation.field, violation.description) for violation in violations_of(question)]


def with_member(**fields: object) -> Question:
    """Return a good question whose third member has these fields."""
    members = [AskedMember(id=f"seat-{index}", model="quick") for index in range(3)]
    return Question(prompt="Why?", members=(*members[:2], replace(members[2], **fields)))  # type: ignore[arg-type]  # one table for fields of all types


def with_options(**fields: object) -> Question:
    """Return a good question with these options."""
    return Question(prompt="Why?", options=replace(AskedOptions(), **fields))  # type: ignore[arg-type]  # as above


def with_generation(**fields: object) -> Question:
    """Return a good question with these generation parameters."""
    return Question(prompt="Why?", generation=replace(AskedGeneration(), **fields))  # type: ignore[arg-type]  # as above


def turns(*roles: str, text: str = "so") -> Question:
    """Return a conversation of these roles."""
    return Question(messages=tuple(AskedMessage(role=role, text=text) for role in roles))


GOOD = [
    Question(prompt=" "),
    Question(prompt="a" * MIB, system="b" * MIB),
    Question(prompt="é" * (MIB // 2)),
    Question(prompt="\t\r\n<b>&amp;\u2028\ufeff\u200d\U0010ffff"),
    Question(prompt="Why?", request_id="!" + "~" * 127),
    Question(prompt="Why?", profile="p" * 128, strategy="s" * 128),
    turns("user"),
    turns("system", "user", "assistant", "user"),
    turns("system", "user", "user", "system", "user"),
    turns(*["user"] * 256),
    turns("user", "user", text="a" * MIB),
    with_member(id="A-z_0.9#2", model="m" * 128, samples=8, weight=100.0, temperature=2.0, max_output_tokens=131_072, timeout=3600.0, persona="p" * (16 << 10)),
    with_member(id="i" * 64, samples=1, weight=5e-324, temperature=0.0, max_output_tokens=1, timeout=1e-9),
    with_options(quorum=1, straggler_grace=0.0, panel_share=1.0, shuffle_seed=-(1 << 63), candidate_byte_limit=256),
    with_options(quorum=1 << 30, straggler_grace=600.0, panel_share=1e-9, shuffle_seed=(1 << 63) - 1, candidate_byte_limit=MIB),
    with_options(refiner=AskedRefiner(model="careful", temperature=2.0, max_output_tokens=1, timeout=3600.0)),
    with_options(hedge=AskedHedge(), retry=AskedRetry(), early_stop_agreement=1.0),
    with_options(hedge=AskedHedge(delay=0.001, percentile=50.0, max=0), retry=AskedRetry(max_attempts=1, rate_limited=1, failed=1, timed_out=1)),
    with_options(hedge=AskedHedge(delay=600.0, percentile=99.9, max=64), retry=AskedRetry(max_attempts=5, rate_limited=5, failed=5, timed_out=5)),
    with_options(early_stop_agreement=1e-9),
    with_options(parameters={"pattern": "a+", "deep": [{"er": [1.0, None, True]}]}),
    with_generation(temperature=0.0, top_p=1.0, max_output_tokens=131_072, stop=("a", "b" * 256, "\n", "d"), seed=-1),
    Question(prompt="Why?", max_cost_micro_usd=1),
    Question(prompt="Why?", max_cost_micro_usd=10**12),
    Question(prompt="Why?", response_schema='{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}'),
    Question(prompt="Why?", response_schema="{}" + " " * ((64 << 10) - 2)),
    Question(prompt="Why?", labels={f"team-{index}_x": "v" * 256 for index in range(15)} | {"l" * 64: ""}),
]


@pytest.mark.parametrize("question", GOOD, ids=range(len(GOOD)))
def test_what_is_within_the_limits_passes(question: Question) -> None:
    """Every limit itself is allowed."""
    assert told(question) == []


BAD: list[tuple[Question, str, str]] = [
    # The question.
    (Question(), "prompt", "is required where there are no messages"),
    (Question(system="Be brief."), "prompt", "is required where there are no messages"),
    (Question(prompt="a" * (MIB + 1)), "prompt", "is longer than 1048576 bytes of UTF-8"),
    (Question(prompt="a" * (5 * MIB)), "prompt", "is longer than 1048576 bytes of UTF-8"),
    (Question(prompt="é" * (MIB // 2) + "a"), "prompt", "is longer than 1048576 bytes of UTF-8"),
    (Question(prompt="ab\0c"), "prompt", "has a forbidden control character at position 2, counted in characters from 0"),
    (Question(prompt="😀\x85"), "prompt", "has a forbidden control character at position 1, counted in characters from 0"),
    (Question(prompt="Why?", system="s" * (MIB + 1)), "system", "is longer than 1048576 bytes of UTF-8"),
    (Question(prompt="Why?", system="\x1b[0m"), "system", "has a forbidden control character at position 0, counted in characters from 0"),
    (Question(prompt="Why?", request_id="a" * 129), "request_id", "must be 1 to 128 visible ASCII characters"),
    (Question(prompt="Why?", request_id="a b"), "request_id", "must be 1 to 128 visible ASCII characters"),
    (Question(prompt="Why?", request_id="é"), "request_id", "must be 1 to 128 visible ASCII characters"),
    (Question(prompt="Why?", request_id="a\n"), "request_id", "must be 1 to 128 visible ASCII characters"),
    (Question(prompt="Why?", profile="p" * 129), "profile", "must have at most 128 characters"),
    (Question(prompt="Why?", profile="\x7f"), "profile", "has a forbidden control character at position 0, counted in characters from 0"),
    (Question(prompt="Why?", strategy="s" * 129), "strategy", "must have at most 128 characters"),
    (Question(prompt="Why?", max_cost_micro_usd=0), "max_cost_micro_usd", "must be at least 1"),
    (Question(prompt="Why?", max_cost_micro_usd=-1), "max_cost_micro_usd", "must be at least 1"),
    (Question(prompt="Why?", max_cost_micro_usd=10**12 + 1), "max_cost_micro_usd", "must be at most 1000000000000"),
    (Question(prompt="Why?", response_schema="{}" + " " * ((64 << 10) - 1)), "response_schema", "is larger than 65536 bytes"),
    (Question(prompt="Why?", response_schema='"' + "é" * (32 << 10)), "response_schema", "is larger than 65536 bytes"),
    # Messages.
    (Question(prompt="Why?", messages=(AskedMessage(text="so"),)), "prompt", "must not be set together with messages"),
    (Question(system="Be brief.", messages=(AskedMessage(text="so"),)), "system", "must not be set together with messages"),
    (turns("user", "", "user"), "messages[1].role", "must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT"),
    (turns("user", ""), "messages[1].role", "must be ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT"),
    (turns("user", "assistant"), "messages[1].role", "must be ROLE_USER, because it is the last message"),
    (turns("system"), "messages[0].role", "must be ROLE_USER, because it is the last message"),
    (turns(*["user"] * 256, "assistant"), "messages", "must have at most 256 entries"),
    (turns("user", text=""), "messages[0].text", "must not be empty"),
    (turns("user", text="a" * (MIB + 1)), "messages[0].text", "is longer than 1048576 bytes of UTF-8"),
    (turns("user", text="a\x08"), "messages[0].text", "has a forbidden control character at position 1, counted in characters from 0"),
    (turns("user", "user", "user", text="é" * (MIB // 3 + 1)), "messages", "hold more than 2097152 bytes of UTF-8 together"),
    # Members.
    (Question(prompt="Why?", members=tuple(AskedMember(model="m") for _ in range(9))), "members", "must have at most 8 entries"),
    (with_member(id="a/2"), "members[2].id", 'must be 1 to 64 characters of a-z, A-Z, 0-9, "-", "_", "." and "#"'),
    (with_member(id="i" * 65), "members[2].id", 'must be 1 to 64 characters of a-z, A-Z, 0-9, "-", "_", "." and "#"'),
    (with_member(model=""), "members[2].model", "must not be empty"),
    (with_member(model="m" * 129), "members[2].model", "must have at most 128 characters"),
    (with_member(samples=-1), "members[2].samples", "must be at least 1"),
    (with_member(samples=9), "members[2].samples", "must be at most 8"),
    (with_member(weight=0.0), "members[2].weight", "must be above 0.0"),
    (with_member(weight=100.5), "members[2].weight", "must be at most 100.0"),
    (with_member(weight=math.nan), "members[2].weight", "must be a finite number"),
    (with_member(temperature=3.0), "members[2].temperature", "must be at most 2.0"),
    (with_member(temperature=-0.1), "members[2].temperature", "must be at least 0.0"),
    (with_member(temperature=math.nan), "members[2].temperature", "must be a finite number"),
    (with_member(temperature=math.inf), "members[2].temperature", "must be a finite number"),
    (with_member(max_output_tokens=0), "members[2].max_output_tokens", "must be at least 1"),
    (with_member(max_output_tokens=131_073), "members[2].max_output_tokens", "must be at most 131072"),
    (with_member(timeout=0.0), "members[2].timeout", "must be above 0 and at most 1 hour"),
    (with_member(timeout=3600.1), "members[2].timeout", "must be above 0 and at most 1 hour"),
    (with_member(timeout=math.nan), "members[2].timeout", "is not a well-formed duration"),
    (with_member(persona="é" * (8 << 10) + "a"), "members[2].persona", "is longer than 16384 bytes of UTF-8"),
    (with_member(persona="a\x01"), "members[2].persona", "has a forbidden control character at position 1, counted in characters from 0"),
    # Options.
    (with_options(quorum=0), "options.quorum", "must be at least 1"),
    (with_options(straggler_grace=-0.1), "options.straggler_grace", "must be from 0 to 10 minutes"),
    (with_options(straggler_grace=600.1), "options.straggler_grace", "must be from 0 to 10 minutes"),
    (with_options(straggler_grace=math.nan), "options.straggler_grace", "is not a well-formed duration"),
    (with_options(panel_share=0.0), "options.panel_share", "must be above 0.0"),
    (with_options(panel_share=1.1), "options.panel_share", "must be at most 1.0"),
    (with_options(panel_share=math.nan), "options.panel_share", "must be a finite number"),
    (with_options(candidate_byte_limit=255), "options.candidate_byte_limit", "must be at least 256"),
    (with_options(candidate_byte_limit=MIB + 1), "options.candidate_byte_limit", "must be at most 1048576"),
    (with_options(refiner=AskedRefiner(model="")), "options.refiner.model", "must not be empty"),
    (with_options(refiner=AskedRefiner(model="m", temperature=2.5)), "options.refiner.temperature", "must be at most 2.0"),
    (with_options(refiner=AskedRefiner(model="m", max_output_tokens=0)), "options.refiner.max_output_tokens", "must be at least 1"),
    (with_options(refiner=AskedRefiner(model="m", timeout=-1.0)), "options.refiner.timeout", "must be above 0 and at most 1 hour"),
    (with_options(hedge=AskedHedge(delay=0.0)), "options.hedge.delay", "must be from 1 ms to 10 minutes"),
    (with_options(hedge=AskedHedge(delay=600.001)), "options.hedge.delay", "must be from 1 ms to 10 minutes"),
    (with_options(hedge=AskedHedge(delay=math.nan)), "options.hedge.delay", "is not a well-formed duration"),
    (with_options(hedge=AskedHedge(percentile=49.9)), "options.hedge.percentile", "must be at least 50.0"),
    (with_options(hedge=AskedHedge(percentile=99.95)), "options.hedge.percentile", "must be at most 99.9"),
    (with_options(hedge=AskedHedge(percentile=math.nan)), "options.hedge.percentile", "must be a finite number"),
    (with_options(hedge=AskedHedge(max=-1)), "options.hedge.max", "must be at least 0"),
    (with_options(hedge=AskedHedge(max=65)), "options.hedge.max", "must be at most 64"),
    *(
        (with_options(retry=AskedRetry(**{field: attempts})), f"options.retry.{field}", words)
        for field in ("max_attempts", "rate_limited", "failed", "timed_out")
        for attempts, words in ((0, "must be at least 1"), (6, "must be at most 5"))
    ),
    (with_options(early_stop_agreement=0.0), "options.early_stop_agreement", "must be above 0.0"),
    (with_options(early_stop_agreement=1.01), "options.early_stop_agreement", "must be at most 1.0"),
    (with_options(early_stop_agreement=math.nan), "options.early_stop_agreement", "must be a finite number"),
    (with_options(parameters=None), "options.parameters", "is larger than 65536 bytes"),
    (with_options(parameters={"a": [{"b": math.inf}]}), "options.parameters", "must hold finite numbers only"),
    # Generation.
    (with_generation(temperature=2.01), "generation.temperature", "must be at most 2.0"),
    (with_generation(temperature=math.nan), "generation.temperature", "must be a finite number"),
    (with_generation(top_p=0.0), "generation.top_p", "must be above 0.0"),
    (with_generation(top_p=-math.inf), "generation.top_p", "must be a finite number"),
    (with_generation(max_output_tokens=0), "generation.max_output_tokens", "must be at least 1"),
    (with_generation(stop=("a",) * 5), "generation.stop", "must have at most 4 entries"),
    (with_generation(stop=("a", "")), "generation.stop[1]", "must not be empty"),
    (with_generation(stop=("a", "b" * 257)), "generation.stop[1]", "must have at most 256 characters"),
    (with_generation(stop=("a", "\0")), "generation.stop[1]", "has a forbidden control character at position 0, counted in characters from 0"),
    # Labels.
    (Question(prompt="Why?", labels={f"l{index}": "" for index in range(17)}), "labels", "must have at most 16 entries"),
    (Question(prompt="Why?", labels={"Secret Name": ""}), "labels", 'must be named with 1 to 64 characters of a-z, 0-9, "-" and "_"'),
    (Question(prompt="Why?", labels={"": ""}), "labels", "must not be empty"),
    (Question(prompt="Why?", labels={"team": "v" * 257}), 'labels["team"]', "must have at most 256 characters"),
    (Question(prompt="Why?", labels={"team": "\0"}), 'labels["team"]', "has a forbidden control character at position 0, counted in characters from 0"),
]


@pytest.mark.parametrize(("question", "field", "words"), BAD, ids=[f"{field}: {words}" for _, field, words in BAD])
def test_what_is_beyond_a_limit_is_one_violation_of_its_field(question: Question, field: str, words: str) -> None:
    """Each bad field is named by its path, with the limit in words."""
    assert told(question) == [(field, words)]


BAD_SCHEMAS = ["[]", '"x"', "true", "null", "{", "not JSON", '{"type": 7}', '{"type": "no such type"}', '{"properties": []}', "{} {}"]


@pytest.mark.parametrize("schema", BAD_SCHEMAS)
def test_a_schema_that_is_none_is_refused(schema: str) -> None:
    """What is no JSON, no object or no JSON Schema is one violation, in words of our own."""
    ((field, words),) = told(Question(prompt="Why?", response_schema=schema))
    assert field == "response_schema"
    assert words


def test_a_schema_is_not_repeated() -> None:
    """Neither names nor values of a bad schema are told."""
    ((_, words),) = told(Question(prompt="Why?", response_schema='{"properties": {"hunter2": {"type": "hunter3"}}, "hunter4": 1}'))
    assert "hunter" not in words


def test_all_violations_are_told_at_once() -> None:
    """The rules of one field and those between fields are told together, in the order of the request."""
    question = Question(
        request_id=" ",
        prompt="so",
        messages=(AskedMessage(role="assistant", text="\0"), AskedMessage(role="assistant", text="")),
        members=(AskedMember(model="", temperature=3.0), AskedMember(model="m", temperature=math.nan)),
        labels={"Bad": "v" * 257},
        max_cost_micro_usd=0,
    )
    assert [field for field, _ in told(question)] == [
        "request_id",
        "messages[0].text",
        "messages[1].text",
        "members[0].model",
        "members[0].temperature",
        "members[1].temperature",
        "labels",
        "labels",
        "max_cost_micro_usd",
        "prompt",
        "messages[1].role",
    ]


def test_values_are_never_repeated() -> None:
    """Neither the path nor the words hold what the caller wrote."""
    secret = "sk-\x00hunter2"
    question = Question(
        request_id=secret,
        profile=secret,
        strategy=secret,
        messages=(AskedMessage(text=secret), AskedMessage(role=secret, text=secret), AskedMessage(text=secret)),
        members=(AskedMember(id=secret, model=secret, persona=secret),),
        options=AskedOptions(refiner=AskedRefiner(model=secret)),
        generation=AskedGeneration(stop=(secret,)),
        labels={secret: secret},
    )
    violations = told(question)
    assert len(violations) == 14
    assert not any("hunter2" in field + words for field, words in violations)
