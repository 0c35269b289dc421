"""What the schema refuses, each with its path and its words."""

import json
from collections.abc import Mapping

import pytest

from services.chassis.configuration import ProfileSection, plain_parameters
from services.chassis.configuration.schema import Configuration
from services.chassis.configuration.schema_keys import kind_at, known_keys
from tests.chassis.configuration.conftest import Load, Refused

NAME_RULE = 'must be a name: 1 to 60 of a-z, A-Z, 0-9, "-", "_" and ".", the first one a letter or figure'
ADDRESS_RULE = 'must be HOST:PORT, for example "127.0.0.1:50051" or "[::1]:50051", or unix:PATH'
TARGET_RULE = 'must be a gRPC target, for example "127.0.0.1:50052" or "dns:///limiter:50053"'
URL_RULE = "must be a URL that begins with http:// or https://"
URL_EXTRAS = "must be a URL without user name, password, query and fragment"
DURATION_RULE = 'must be a duration: one number, at most three decimals, and ms, s, m or h, for example "1.5h"'
DURATION_UNIT = 'must be a duration with its unit, for example "500ms", "60s", "10m" or "1h"'
CONTROL = "must not hold broken Unicode, nor control characters other than tab, newline and carriage return"


def provider(settings: str) -> str:
    """Return a provider with these settings."""
    return f"providers: {{p: {{kind: openai, base_url: 'http://x', {settings}}}}}"


def model(settings: str) -> str:
    """Return a model with these settings."""
    return f"models: {{m: {{provider: local, name: x, {settings}}}}}"


def profile(settings: str, members: str = "[{model: smollm2}]", strategy: str = "single") -> str:
    """Return a profile with these settings."""
    return f"profiles: {{p: {{strategy: {strategy}, members: {members}, {settings}}}}}"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        # Keys
        ("gatway: {}", "gatway", 'is not known; did you mean "gateway"?'),
        ("gatway:", "gatway", 'is not known; did you mean "gateway"?'),
        ("telemetry: {zzz: 1}", "telemetry.zzz", "is not known; known are capture_content, endpoint"),
        ("gateway: {grace_seconds: 1s}", "gateway.grace_seconds", 'is not known; did you mean "grace"?'),
        (model("limits: {request_per_minute: 1}"), "models.m.limits.request_per_minute", 'is not known; did you mean "requests_per_minute"?'),
        (profile("", "[{model: smollm2, temprature: 1}]"), "profiles.p.members[0].temprature", 'is not known; did you mean "temperature"?'),
        (
            profile("refiner: {model: smollm2, persona: x}"),
            "profiles.p.refiner.persona",
            "is not known; known are max_output_tokens, model, temperature, timeout",
        ),
        # Names
        ("models: {'a b': {provider: local, name: x}}", 'models["a b"]', NAME_RULE),
        (f"models: {{{'a' * 61}: {{provider: local, name: x}}}}", f"models.{'a' * 61}", NAME_RULE),
        ("profiles: {-p: {strategy: single, members: [{model: smollm2}]}}", "profiles.-p", NAME_RULE),
        ("providers: {a/b: {kind: openai, base_url: 'http://x'}}", 'providers["a/b"]', NAME_RULE),
        # Types
        ("gateway: 8", "gateway", "must be a mapping"),
        ("models: [a]", "models", "must be a mapping"),
        ("models: {m: x}", "models.m", "must be a mapping"),
        ("gateway: {reflection: 'true'}", "gateway.reflection", "must be true or false"),
        ("gateway: {reflection: 1}", "gateway.reflection", "must be true or false"),
        ("gateway: {listen: 50051}", "gateway.listen", "must be text"),
        ("gateway: {listen: null}", "gateway.listen", "must be text"),
        (model("max_output_tokens: '8'"), "models.m.max_output_tokens", "must be a whole number"),
        (model("max_output_tokens: 8.5"), "models.m.max_output_tokens", "must be a whole number"),
        (model("max_output_tokens: true"), "models.m.max_output_tokens", "must be a whole number"),
        (model("price: {input: '1', output: 1}"), "models.m.price.input", "must be a number"),
        (model("price: {input: true, output: 1}"), "models.m.price.input", "must be a number"),
        (profile("", "{model: smollm2}"), "profiles.p.members", "must be a list"),
        (profile("generation: {stop: x}"), "profiles.p.generation.stop", "must be a list"),
        # Servers
        ("gateway: {listen: localhost}", "gateway.listen", ADDRESS_RULE),
        ("gateway: {listen: ':50051'}", "gateway.listen", ADDRESS_RULE),
        ("gateway: {listen: '127.0.0.1:65536'}", "gateway.listen", ADDRESS_RULE),
        ("gateway: {listen: '::1:50051'}", "gateway.listen", ADDRESS_RULE),
        ("gateway: {orchestrator: ''}", "gateway.orchestrator", TARGET_RULE),
        ("orchestrator: {limiter: 'a b'}", "orchestrator.limiter", TARGET_RULE),
        ("gateway: {grace: 11m}", "gateway.grace", "must be at most 600"),
        ("gateway: {default_deadline: 0s}", "gateway.default_deadline", "must be at least 0.001"),
        ("gateway: {deadline_cap: 2h}", "gateway.deadline_cap", "must be at most 3600"),
        ("gateway: {default_deadline: 2m, deadline_cap: 1m}", "gateway.deadline_cap", "must not be shorter than default_deadline"),
        ("gateway: {most_request_bytes: 1023}", "gateway.most_request_bytes", "must be at least 1024"),
        ("gateway: {most_request_bytes: 8388609}", "gateway.most_request_bytes", "must be at most 8388608"),
        ("limiter: {longest_lease: 25h}", "limiter.longest_lease", "must be at most 86400"),
        ("limiter: {idempotency_window: 0s}", "limiter.idempotency_window", "must be at least 0.001"),
        ("limiter: {late_report_grace: 601s}", "limiter.late_report_grace", "must be at most 600"),
        ("telemetry: {endpoint: 'ftp://x'}", "telemetry.endpoint", URL_RULE),
        ("telemetry: {endpoint: localhost}", "telemetry.endpoint", ADDRESS_RULE),
        ("telemetry: {endpoint: 'http://u:p@x:4317'}", "telemetry.endpoint", URL_EXTRAS),
        # Durations
        ("gateway: {grace: 10}", "gateway.grace", DURATION_UNIT),
        ("gateway: {grace: null}", "gateway.grace", DURATION_UNIT),
        ("gateway: {grace: 10 s}", "gateway.grace", DURATION_RULE),
        ("gateway: {grace: -1s}", "gateway.grace", DURATION_RULE),
        # Providers
        ("providers: {p: {base_url: 'http://x'}}", "providers.p.kind", "is required"),
        ("providers: {p: {kind: anthropic, base_url: 'http://x'}}", "providers.p.kind", "must be 'openai'"),
        ("providers: {p: {kind: openai, base_url: x}}", "providers.p.base_url", URL_RULE),
        ("providers: {p: {kind: openai, base_url: 'http://'}}", "providers.p.base_url", URL_RULE),
        ("providers: {p: {kind: openai, base_url: 'http://x:99999'}}", "providers.p.base_url", URL_RULE),
        ("providers: {p: {kind: openai, base_url: 'http://x:0'}}", "providers.p.base_url", URL_RULE),
        ("providers: {p: {kind: openai, base_url: 'http://[x'}}", "providers.p.base_url", URL_RULE),
        ("providers: {p: {kind: openai, base_url: 'http://x y'}}", "providers.p.base_url", URL_RULE),
        ("providers: {p: {kind: openai, base_url: 'http://é'}}", "providers.p.base_url", URL_RULE),
        ("providers: {p: {kind: openai, base_url: 'https://u:p@x'}}", "providers.p.base_url", URL_EXTRAS),
        ("providers: {p: {kind: openai, base_url: 'https://x?key=y'}}", "providers.p.base_url", URL_EXTRAS),
        ("providers: {p: {kind: openai, base_url: 'https://x#y'}}", "providers.p.base_url", URL_EXTRAS),
        (provider("headers: {'a b': x}"), 'providers.p.headers["a b"]', "must be the name of an HTTP header"),
        (provider('headers: {X-A: "x\\ny"}'), "providers.p.headers.X-A", "must be one line of at most 4096 printable ASCII characters"),
        (
            provider("headers: {X-Api-Key: x}"),
            "providers.p.headers.X-Api-Key",
            "must not be a header that carries a secret; api_key is sent as the bearer token",
        ),
        # Models
        ("models: {m: {name: x}}", "models.m.provider", "is required"),
        ("models: {m: {provider: local}}", "models.m.name", "is required"),
        ("models: {m: {provider: locl, name: x}}", "models.m.provider", 'names no provider; did you mean "local"?'),
        ("models: {m: {provider: zzz, name: x}}", "models.m.provider", "names no provider; known are local"),
        ("models: {m: {provider: local, name: ''}}", "models.m.name", "must not be empty"),
        ("models: {m: {provider: local, name: 'a b'}}", "models.m.name", "must be visible ASCII characters without a space"),
        (f"models: {{m: {{provider: local, name: {'x' * 257}}}}}", "models.m.name", "must have at most 256 characters"),
        (model("timeout: 0s"), "models.m.timeout", "must be at least 0.001"),
        (model("timeout: 61m"), "models.m.timeout", "must be at most 3600"),
        (model("timeout: 10s, first_token_timeout: 11s"), "models.m.first_token_timeout", "must not be longer than timeout"),
        (model("first_token_timeout: 61s"), "models.m.first_token_timeout", "must not be longer than timeout"),
        (model("timeout: 10s, idle_timeout: 11s"), "models.m.idle_timeout", "must not be longer than timeout"),
        (model("max_output_tokens: 0"), "models.m.max_output_tokens", "must be at least 1"),
        (model("max_output_tokens: 131073"), "models.m.max_output_tokens", "must be at most 131072"),
        (model("price: {input: 1}"), "models.m.price.output", "is required"),
        (model("price: {input: -0.1, output: 1}"), "models.m.price.input", "must be at least 0"),
        (model("price: {input: 1, output: 1e9}"), "models.m.price.output", "must be at most 100000"),
        (model("price: {input: 1, output: 1, cached_input: -1}"), "models.m.price.cached_input", "must be at least 0"),
        (model("limits: {requests_per_minute: 0}"), "models.m.limits.requests_per_minute", "must be at least 1"),
        (model("limits: {tokens_per_minute: -5}"), "models.m.limits.tokens_per_minute", "must be at least 1"),
        (model("limits: {concurrency: 0}"), "models.m.limits.concurrency", "must be at least 1"),
        (model("limits: {concurrency: 10001}"), "models.m.limits.concurrency", "must be at most 10000"),
        (model("limits: {request_burst: 0}"), "models.m.limits.request_burst", "must be at least 1"),
        (model("breaker: {failure_rate: 0}"), "models.m.breaker.failure_rate", "must be above 0"),
        (model("breaker: {slow_rate: 1.1}"), "models.m.breaker.slow_rate", "must be at most 1"),
        (model("breaker: {minimum_calls: 0}"), "models.m.breaker.minimum_calls", "must be at least 1"),
        (model("breaker: {consecutive_failures: 0}"), "models.m.breaker.consecutive_failures", "must be at least 1"),
        (model("breaker: {open: 10s, longest_open: 9s}"), "models.m.breaker.longest_open", "must not be shorter than open"),
        (model("structured_output: yaml"), "models.m.structured_output", "must be 'json_schema', 'json_object' or 'prompt'"),
        (model("structured_output: null"), "models.m.structured_output", "must be 'json_schema', 'json_object' or 'prompt'"),
        (model("context_tokens: 255"), "models.m.context_tokens", "must be at least 256"),
        (model("context_tokens: 100000001"), "models.m.context_tokens", "must be at most 100000000"),
        (model("context_tokens: 8k"), "models.m.context_tokens", "must be a whole number"),
        # Profiles
        ("profiles: {p: {members: [{model: smollm2}]}}", "profiles.p.strategy", "is required"),
        (profile("", strategy="''"), "profiles.p.strategy", "must not be empty"),
        ("profiles: {p: {strategy: single}}", "profiles.p.members", "is required"),
        (profile("", "[]"), "profiles.p.members", "must have at least 1 entry"),
        (profile("", f"[{'{model: smollm2}, ' * 9}]"), "profiles.p.members", "must have at most 8 entries"),
        (
            profile("", "[{model: smollm2, samples: 5, id: a}, {model: smollm2, samples: 4}]"),
            "profiles.p.members",
            "make 9 calls in all; at most 8 are possible",
        ),
        (profile("", "[{model: smollm2, samples: 0}]"), "profiles.p.members[0].samples", "must be at least 1"),
        (profile("", "[{model: smolm}]"), "profiles.p.members[0].model", 'names no model; did you mean "smollm2"?'),
        (profile("", "[{model: smollm2, id: a}, {model: smollm2, id: a}]"), "profiles.p.members", 'have the id "a" more than once'),
        (profile("", "[{model: smollm2, id: 'smollm2#2'}, {model: smollm2}]"), "profiles.p.members", 'have the id "smollm2#2" more than once'),
        (profile("", "[{model: smollm2, id: a/2}]"), "profiles.p.members[0].id", 'must be 1 to 64 of a-z, A-Z, 0-9, "-", "_", "." and "#"'),
        (profile("", "[{model: smollm2, weight: 0}]"), "profiles.p.members[0].weight", "must be above 0"),
        (profile("", "[{model: smollm2, weight: 101}]"), "profiles.p.members[0].weight", "must be at most 100"),
        (profile("", "[{model: smollm2, temperature: 2.1}]"), "profiles.p.members[0].temperature", "must be at most 2"),
        (profile("", "[{model: smollm2, timeout: 0s}]"), "profiles.p.members[0].timeout", "must be at least 0.001"),
        (profile("", f"[{{model: smollm2, persona: {'é' * 8193}}}]"), "profiles.p.members[0].persona", "must be at most 16384 bytes of UTF-8"),
        (profile("", '[{model: smollm2, persona: "a\\0"}]'), "profiles.p.members[0].persona", CONTROL),
        (profile("", '[{model: smollm2, persona: "a\\x85"}]'), "profiles.p.members[0].persona", CONTROL),
        (profile(f"description: {'x' * 1025}"), "profiles.p.description", "must have at most 1024 characters"),
        (profile("", strategy="fusion"), "profiles.p.refiner", "is required by the strategy fusion"),
        (profile("refiner: null", strategy="fusion"), "profiles.p.refiner", "is required by the strategy fusion"),
        (profile("refiner: {model: smollm}"), "profiles.p.refiner.model", 'names no model; did you mean "smollm2"?'),
        (profile("quorum: 0"), "profiles.p.quorum", "must be at least 1"),
        (profile("quorum: 2"), "profiles.p.quorum", "must be at most the number of calls in the panel, which is 1"),
        (profile("straggler_grace: 11m"), "profiles.p.straggler_grace", "must be at most 600"),
        (profile("panel_share: 0"), "profiles.p.panel_share", "must be above 0"),
        (profile("panel_share: 1.5"), "profiles.p.panel_share", "must be at most 1"),
        (profile("candidate_byte_limit: 255"), "profiles.p.candidate_byte_limit", "must be at least 256"),
        *(
            (profile("", strategy=strategy), "profiles.p.refiner", f"is required by the strategy {strategy}")
            for strategy in ("best_of_n", "self_moa", "moa", "rank_then_fuse")
        ),
        (profile("shuffle_seed: 9223372036854775808"), "profiles.p.shuffle_seed", "must be a whole number"),
        (profile("hedge: 2s"), "profiles.p.hedge", "must be a mapping"),
        (profile("hedge: {delay: 2}"), "profiles.p.hedge.delay", DURATION_UNIT),
        (profile("hedge: {delay: 0s}"), "profiles.p.hedge.delay", "must be at least 0.001"),
        (profile("hedge: {delay: 601s}"), "profiles.p.hedge.delay", "must be at most 600"),
        (profile("hedge: {percentile: 49}"), "profiles.p.hedge.percentile", "must be at least 50"),
        (profile("hedge: {percentile: 100}"), "profiles.p.hedge.percentile", "must be at most 99.9"),
        (profile("hedge: {max: -1}"), "profiles.p.hedge.max", "must be at least 0"),
        (profile("hedge: {max: 65}"), "profiles.p.hedge.max", "must be at most 64"),
        (profile("hedge: {most: 1}"), "profiles.p.hedge.most", "is not known; known are delay, max, percentile"),
        *(
            (profile(f"retry: {{{key}: {attempts}}}"), f"profiles.p.retry.{key}", words)
            for key in ("max_attempts", "rate_limited", "failed", "timed_out")
            for attempts, words in ((0, "must be at least 1"), (6, "must be at most 5"))
        ),
        (profile("early_stop_agreement: 0"), "profiles.p.early_stop_agreement", "must be above 0"),
        (profile("early_stop_agreement: 1.1"), "profiles.p.early_stop_agreement", "must be at most 1"),
        (profile("max_cost: 0"), "profiles.p.max_cost", "must be above 0"),
        (profile("max_cost: 1000001"), "profiles.p.max_cost", "must be at most 1000000"),
        (profile("max_cost: $1"), "profiles.p.max_cost", "must be a number"),
        (profile("parameters: [a]"), "profiles.p.parameters", "must be a mapping"),
        (profile("parameters: null"), "profiles.p.parameters", "must be a mapping"),
        (profile(f"parameters: {{a: {'[' * 15}[]{']' * 15}}}"), "profiles.p.parameters", "must be nested at most 16 deep"),
        (profile("parameters: {a: [{b: 9007199254740993}]}"), "profiles.p.parameters", "must hold whole numbers of at most 9007199254740992"),
        (profile(f"parameters: {{a: {'é' * (32 << 10)}}}"), "profiles.p.parameters", "must be at most 65536 bytes as JSON"),
        (profile("generation: {temperature: -1}"), "profiles.p.generation.temperature", "must be at least 0"),
        (profile("generation: {top_p: 0}"), "profiles.p.generation.top_p", "must be above 0"),
        (profile("generation: {stop: [a, b, c, d, e]}"), "profiles.p.generation.stop", "must have at most 4 entries"),
        (profile("generation: {stop: ['']}"), "profiles.p.generation.stop[0]", "must not be empty"),
        (profile("generation: {seed: 99999999999999999999}"), "profiles.p.generation.seed", "must be a whole number"),
        (profile("generation: {seed: 1.5}"), "profiles.p.generation.seed", "must be a whole number"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(refused: Refused, text: str, path: str, message: str) -> None:
    """Each mistake is told alone, at its path, in words that say what would be right."""
    assert [(each.path, each.message) for each in refused(text)] == [(path, message)]


def test_numbers_that_are_not_finite_are_refused(refused: Refused) -> None:
    """YAML cannot say them here, but an override can."""
    (problem,) = refused(overrides={"models": {"smollm2": {"price": {"input": float("nan"), "output": 1.0}}}})
    assert (problem.path, problem.message) == ("models.smollm2.price.input", "must be a finite number")


@pytest.mark.parametrize("key", ["model", "persona", "description"])
def test_broken_unicode_is_refused(refused: Refused, key: str) -> None:
    """A variable's bytes that are not UTF-8 arrive as halves of surrogate pairs, which nothing behind could encode."""
    broken = "\udcff"
    member = {"model": "smollm2", **({} if key == "description" else {key: broken})}
    settings = {"members": [member], **({key: broken} if key == "description" else {})}
    (problem,) = refused(overrides={"profiles": {"single": settings}})
    assert problem.path == f"profiles.single.{'' if key == 'description' else 'members[0].'}{key}"
    str(problem).encode()


def test_a_section_that_is_no_mapping_is_told_alone(refused: Refused) -> None:
    """Names are not missed where the whole section could not be read."""
    assert [problem.path for problem in refused("providers: 8\nmodels: 8\n")] == ["providers", "models"]


def test_a_seed_has_64_bits(refused: Refused, load: Load) -> None:
    """A seed must fit into the wire format's integer."""
    (problem,) = refused(overrides={"profiles": {"single": {"generation": {"seed": 1 << 63}}}})
    assert problem.path == "profiles.single.generation.seed"
    assert load(overrides={"profiles": {"single": {"generation": {"seed": -(1 << 63)}}}}).profiles["single"].generation.seed == -(1 << 63)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::]:50051", "*:50051", "gateway.internal:65535", "unix:/run/gateway.sock"])
def test_a_server_may_listen_where_grpc_can(load: Load, listen: str) -> None:
    """Any host, IPv6 in brackets, and sockets of the file system are accepted."""
    assert load(f"gateway: {{listen: '{listen}'}}").gateway.listen == listen


@pytest.mark.parametrize("endpoint", ["http://collector:4317", "https://collector", "127.0.0.1:4317"])
def test_spans_may_go_to_a_url_or_an_address(load: Load, endpoint: str) -> None:
    """The receiver is named as OTLP exporters take it."""
    assert load(f"telemetry: {{endpoint: '{endpoint}'}}").telemetry.endpoint == endpoint


def test_timeouts_that_are_not_set_follow_the_timeout(load: Load) -> None:
    """The first text may take as long as the whole answer; a pause takes 20 s, or the timeout where that is shorter."""
    short, long = (load(model(f"timeout: {timeout}")).models["m"] for timeout in ("7s", "90s"))
    assert (short.first_token_timeout_seconds, short.idle_timeout_seconds) == (7.0, 7.0)
    assert (long.first_token_timeout_seconds, long.idle_timeout_seconds) == (90.0, 20.0)


def test_a_timeout_that_is_wrong_is_told_once(refused: Refused) -> None:
    """What would follow from a wrong timeout is not told beside it."""
    assert [problem.path for problem in refused(model("timeout: soon"))] == ["models.m.timeout"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"a": [float("nan")]}, "must hold finite numbers only"),
        ({"a": {"b": float("-inf")}}, "must hold finite numbers only"),
        ({"a": {1: 2}}, "must have names that are text"),
        ({"a": b"x"}, "must hold text, numbers, true, false, null, lists and mappings only"),
        ({"a": {"b": {1, 2}}}, "must hold text, numbers, true, false, null, lists and mappings only"),
        ({"a": -(10**400)}, "must hold whole numbers of at most 9007199254740992"),
        ({"a": "\udcff"}, "must hold valid Unicode only"),
        ({"\udcff": 1}, "must hold valid Unicode only"),
    ],
)
def test_parameters_that_json_cannot_say_are_refused(refused: Refused, parameters: dict[str, object], message: str) -> None:
    """YAML cannot say them here, but an override can; they would not come through the wire as they are."""
    (problem,) = refused(overrides={"profiles": {"single": {"parameters": parameters}}})
    assert (problem.path, problem.message) == ("profiles.single.parameters", message)


def test_parameters_at_their_limits_are_accepted(load: Load) -> None:
    """Sixteen levels, the greatest whole number, nearly 64 KiB; they are kept as they are and cannot be changed."""
    deep = "[" * 15 + "]" * 15
    text = f"{{deep: {deep}, whole: -9007199254740992, text: {'x' * 65000}, map: {{list: [1, 2.5, null, true, no]}}}}"
    section = load(profile(f"parameters: {text}")).profiles["p"]
    plain = plain_parameters(section.parameters)
    assert (plain["deep"], plain["whole"]) == (json.loads(deep), -(2**53))
    assert plain["map"] == {"list": [1, 2.5, None, True, "no"]}
    inner = section.parameters["map"]
    assert isinstance(inner, Mapping)
    assert isinstance(inner["list"], tuple)
    with pytest.raises(TypeError):
        inner["list"] = 1  # type: ignore[index]  # This is what must fail.


@pytest.mark.parametrize(
    ("usd", "micro_usd"), [("0.25", 250_000), ("0.0000299", 29), ("0.000249", 249), ("0.000001", 1), ("0.0000001", 1), ("1000000", 10**12), ("0.29", 290_000)]
)
def test_a_bound_on_the_cost_is_rounded_down_but_never_to_nothing(load: Load, usd: str, micro_usd: int) -> None:
    """USD in the file, whole micro-USD for the run."""
    assert load(profile(f"max_cost: {usd}")).profiles["p"].max_cost_micro_usd == micro_usd


def test_without_a_bound_on_the_cost_there_is_none(load: Load) -> None:
    """What is not set is not taken for nothing."""
    assert load(profile("")).profiles["p"].max_cost_micro_usd is None


def test_a_quorum_is_not_held_against_a_panel_that_is_wrong(refused: Refused) -> None:
    """Without a valid panel the number of its calls is not known."""
    assert [problem.path for problem in refused(profile("quorum: 8", "[{model: smollm2, samples: 9}]"))] == ["profiles.p.members[0].samples"]


def test_the_largest_panel_is_accepted(load: Load) -> None:
    """Eight calls, all of them needed, are possible; a seat without an id takes a name that is free."""
    assert load(profile("quorum: 8", "[{model: smollm2, samples: 4}, {model: smollm2, samples: 4}]")).profiles["p"].quorum == 8


def test_a_profile_carries_every_option(load: Load) -> None:
    """What is written is what the attributes hold, durations in seconds."""
    text = profile(
        "description: d, refiner: {model: smollm2, temperature: 0, max_output_tokens: 5, timeout: 2s}, quorum: 1, straggler_grace: 0s, panel_share: 1, "
        "candidate_byte_limit: 256, shuffle_seed: -7, hedge: {delay: 1ms, percentile: 99.9, max: 0}, early_stop_agreement: 1, max_cost: 0.5, "
        "retry: {max_attempts: 5, rate_limited: 1, failed: 2, timed_out: 3}, parameters: {layers: 2, deep: [{er: null}]}, "
        "generation: {temperature: 2, top_p: 0.5, max_output_tokens: 9, stop: [x, y], seed: -1}",
        "[{model: smollm2, id: 'a#1', samples: 2, weight: 0.5, temperature: 0, max_output_tokens: 7, timeout: 500ms, persona: \"a\\tb\\nc\"}]",
        "fusion",
    )
    section = load(text).profiles["p"]
    assert section == ProfileSection.model_validate(
        {
            "description": "d",
            "strategy": "fusion",
            "members": [
                {
                    "model": "smollm2",
                    "id": "a#1",
                    "samples": 2,
                    "weight": 0.5,
                    "temperature": 0.0,
                    "max_output_tokens": 7,
                    "timeout": "500ms",
                    "persona": "a\tb\nc",
                }
            ],
            "refiner": {"model": "smollm2", "temperature": 0.0, "max_output_tokens": 5, "timeout": "2s"},
            "quorum": 1,
            "straggler_grace": "0s",
            "panel_share": 1.0,
            "candidate_byte_limit": 256,
            "shuffle_seed": -7,
            "hedge": {"delay": "1ms", "percentile": 99.9, "max": 0},
            "early_stop_agreement": 1.0,
            "max_cost": 0.5,
            "retry": {"max_attempts": 5, "rate_limited": 1, "failed": 2, "timed_out": 3},
            "parameters": {"layers": 2, "deep": [{"er": None}]},
            "generation": {"temperature": 2.0, "top_p": 0.5, "max_output_tokens": 9, "stop": ["x", "y"], "seed": -1},
        }
    )
    assert section.hedge is not None
    assert (section.hedge.delay_seconds, section.hedge.percentile, section.hedge.most, section.shuffle_seed) == (0.001, 99.9, 0, -7)
    assert plain_parameters(section.parameters) == {"layers": 2, "deep": [{"er": None}]}
    assert (section.members[0].timeout_seconds, section.straggler_grace_seconds, section.generation.stop) == (0.5, 0.0, ("x", "y"))


def test_sections_may_be_made_without_surroundings() -> None:
    """Where names are not known they are not checked, and no secret is fetched: a test may make a section of plain data."""
    configuration = Configuration.model_validate(
        {
            "providers": {"p": {"kind": "openai", "base_url": "http://x", "api_key": {"env": "MISSING"}}},
            "models": {"m": {"provider": "other", "name": "x"}},
            "profiles": {"q": {"strategy": "any", "members": [{"model": "another"}]}},
        }
    )
    assert configuration.providers["p"].api_key is None
    assert configuration.models["m"].provider == "other"


def test_known_keys_are_those_of_the_file() -> None:
    """Keys are the file's words; where names are free, or nothing stands, none are known."""
    assert known_keys(("tenants", "anything", "budget")) == ("per_day", "per_month")
    assert known_keys(("profiles", "p", "members", 3))[:2] == ("model", "id")
    assert "timeout" in known_keys(("profiles", "p", "refiner"))
    assert known_keys(("profiles", "p", "hedge")) == ("delay", "percentile", "max")
    assert known_keys(("models",)) == ()
    assert known_keys(("profiles", "p", "parameters", "deep")) == ()
    assert known_keys(("nothing", "here", 1)) == ()


def test_kinds_are_told_without_what_surrounds_them() -> None:
    """Text is text whether it is optional or bounded."""
    assert kind_at(("telemetry", "endpoint")) is str
    assert kind_at(("providers", "p", "api_key", "env")) is str
    assert kind_at(("providers", "p", "headers", "X-Title")) is str
    assert kind_at(("models", "m", "timeout")) is float
    assert kind_at(("profiles", "p", "parameters", "layers")) is object
