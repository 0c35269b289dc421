"""The command line as a user runs it: processes, exit codes, what goes to which stream."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.command_line import NOWHERE, begin, ensemble
from tests.support.fake_provider import Answer, FakeProvider, Hang, Status
from tests.support.stack import MEMBERS, WRITER, Stack, stack


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Run a fake provider."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
async def services(provider: FakeProvider) -> AsyncIterator[Stack]:
    """Run the four services over the provider."""
    async with stack(provider) as running:
        yield running


@pytest.fixture
def gateway(services: Stack) -> str:
    """Return where the gateway listens."""
    return services.running.gateway.address


async def test_ask_prints_the_answer_alone_on_standard_output(gateway: str) -> None:
    """Progress, outcomes and receipt go to standard error, so that the answer can be piped."""
    ended = await ensemble("ask", "What?", "-g", gateway)
    assert (ended.code, ended.text) == (0, "an answer from writer\n")
    for name in MEMBERS:
        assert f"{name}: asked {name}" in ended.err
        assert f"{name}: OK" in ended.err
    assert "answer FUSED from alpha, beta, gamma by writer" in ended.err
    assert "trace " in ended.err


async def test_ask_json_is_one_object(gateway: str, provider: FakeProvider) -> None:
    """Everything the gateway says is in it, candidates' texts where asked for; options reach the request."""
    ended = await ensemble(
        *("ask", "What?", "-g", gateway, "--json", "--candidates", "--member", "alpha", "--member", "beta", "--quorum", "1"),
        *("--temperature", "0.5", "--max-output-tokens", "77", "--system", "Be brief."),
    )
    assert ended.code == 0
    response = json.loads(ended.text)
    assert response["answer"] == "an answer from writer"
    assert [candidate["text"] for candidate in response["candidates"]] == ["an answer from alpha", "an answer from beta"]
    body = provider.asked("alpha")[0].body
    assert (body["temperature"], body["max_tokens"]) == (0.5, 77)
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}


async def test_the_prompt_comes_from_a_file_or_standard_input(gateway: str, provider: FakeProvider, tmp_path: Path) -> None:
    """Both arrive byte for byte."""
    prompt = "Zeile\r\n\tcode = '<b>'\n"
    await asyncio.to_thread((tmp_path / "prompt.txt").write_bytes, prompt.encode())
    assert (await ensemble("ask", "--file", str(tmp_path / "prompt.txt"), "-g", gateway)).code == 0
    assert (await ensemble("ask", "-", "-g", gateway, stdin=prompt.encode())).code == 0
    assert [request.body["messages"][0]["content"] for request in provider.asked("alpha")] == [prompt, prompt]


async def test_prompts_that_cannot_be_read_are_named() -> None:
    """None, two, a missing file and bytes that are no text end with 2."""
    for arguments, stdin, word in (
        ((), None, "give a prompt"),
        (("What?", "--file", "x"), None, "give a prompt"),
        (("--file", "no-such-file"), None, "no-such-file"),
        (("-",), b"\xff", "byte 0"),
    ):
        ended = await ensemble("ask", *arguments, "-g", NOWHERE, stdin=stdin)
        assert (ended.code, word in ended.err, ended.text) == (2, True, "")


async def test_a_bad_request_names_the_fields(gateway: str, provider: FakeProvider) -> None:
    """Exit code 2, each field with its mistake; the same as JSON; no model was asked."""
    ended = await ensemble("ask", "What?", "-g", gateway, "--temperature", "3")
    assert ended.code == 2
    assert "generation.temperature" in ended.err
    ended = await ensemble("ask", "What?", "-g", gateway, "--temperature", "3", "--json")
    error = json.loads(ended.text)["error"]
    assert (ended.code, error["code"], error["reason"], list(error["violations"])) == (2, "INVALID_ARGUMENT", "INVALID_INPUT", ["generation.temperature"])
    assert error["retry_after_seconds"] is None
    assert provider.requests == []


async def test_no_quorum_says_when_to_come_back(gateway: str, provider: FakeProvider) -> None:
    """Exit code 3, each member's outcome, and the wait."""
    for name in MEMBERS:
        provider.script(name, Status(429, {"retry-after": "20"}))
    ended = await ensemble("ask", "What?", "-g", gateway)
    assert ended.code == 3
    assert "try again in 20.0 s" in ended.err
    assert "RATE_LIMITED" in ended.err


async def test_no_gateway_is_unavailable() -> None:
    """Exit code 3 where nobody listens, for each command that asks."""
    assert (await ensemble("ask", "What?", "-g", NOWHERE)).code == 3
    assert (await ensemble("models", "-g", NOWHERE)).code == 3
    ended = await ensemble("profiles", "-g", NOWHERE, "--json")
    assert (ended.code, json.loads(ended.text)["error"]["code"]) == (3, "UNAVAILABLE")


async def test_a_deadline_that_passes_is_4(gateway: str, provider: FakeProvider) -> None:
    """Nothing to show in time."""
    for name in MEMBERS:
        provider.script(name, Hang())
    assert (await ensemble("ask", "What?", "-g", gateway, "--timeout", "0.5")).code == 4


async def test_interrupting_cancels_the_run(gateway: str, provider: FakeProvider) -> None:
    """Ctrl-C ends with 130, and the models' connections are closed."""
    for name in MEMBERS:
        provider.script(name, Hang())
    process = await begin("ask", "What?", "-g", gateway)
    await asyncio.gather(*(provider.started(name) for name in MEMBERS))
    process.send_signal(signal.SIGINT)
    await asyncio.gather(*(provider.disconnected(name) for name in MEMBERS))
    async with asyncio.timeout(10):
        await process.communicate()
    assert process.returncode == 130


async def test_the_answer_goes_to_a_file_too(gateway: str, provider: FakeProvider, tmp_path: Path) -> None:
    """--output writes it whole; a taken name is refused before anything is asked."""
    ended = await ensemble("ask", "What?", "-g", gateway, "--output", "a.txt", "--output-root", ".", folder=tmp_path)
    assert (ended.code, await asyncio.to_thread((tmp_path / "a.txt").read_text)) == (0, "an answer from writer")
    asked = len(provider.requests)
    assert (await ensemble("ask", "What?", "-g", gateway, "-o", "a.txt", folder=tmp_path)).code == 2
    assert (await ensemble("ask", "What?", "-g", gateway, "-o", "../a.txt", "--output-root", ".", folder=tmp_path)).code == 2
    assert len(provider.requests) == asked
    provider.script(WRITER, Answer(text="another"))
    assert (await ensemble("ask", "What?", "-g", gateway, "-o", "a.txt", "--force", "--json", folder=tmp_path)).code == 0
    assert await asyncio.to_thread((tmp_path / "a.txt").read_text) == "another"


async def test_candidates_are_shown_on_request(gateway: str) -> None:
    """Each member's text stands between progress and receipt."""
    ended = await ensemble("ask", "What?", "-g", gateway, "--candidates")
    assert all(f"an answer from {name}" in ended.err for name in MEMBERS)


async def test_models_and_profiles_are_listed(gateway: str) -> None:
    """As tables, and as JSON with live state."""
    ended = await ensemble("models", "-g", gateway)
    assert ended.code == 0
    assert all(word in ended.text for word in (*MEMBERS, "CLOSED", "concurrency 16/16"))
    listed = json.loads((await ensemble("models", "-g", gateway, "--json")).text)["models"]
    assert [model["name"] for model in listed] == sorted([*MEMBERS, WRITER])
    assert listed[0]["state"]["breaker"]["state"] == "BREAKER_STATE_CLOSED"
    ended = await ensemble("profiles", "-g", gateway)
    assert all(word in ended.text for word in ("default", "chain", "fusion", "single"))
    profiles = json.loads((await ensemble("profiles", "-g", gateway, "--json")).text)["profiles"]
    assert [profile["name"] for profile in profiles] == ["chain", "default"]


async def test_health_asks_all_four(services: Stack, tmp_path: Path) -> None:
    """OK while all serve; 3 with the culprit named where one cannot be reached."""
    addresses = services.running.addresses()
    lines = [
        f"gateway: {{listen: '{addresses['gateway']}', orchestrator: '{addresses['orchestrator']}', limiter: '{addresses['limiter']}'}}",
        f"orchestrator: {{refiner: '{addresses['refiner']}'}}",
    ]
    path = tmp_path / "ensemble.yaml"
    await asyncio.to_thread(path.write_text, "\n".join(lines))
    async with asyncio.timeout(20):
        while (await ensemble("health", "--config", str(path))).code != 0:
            # The gateway is ready once its channel to the orchestrator is.
            await asyncio.sleep(0.05)
    ended = await ensemble("health", "--json", folder=tmp_path)
    health = json.loads(ended.text)
    assert (ended.code, health["serving"]) == (0, True)
    assert {one["ready"] for one in health["services"].values()} == {"SERVING"}
    await asyncio.to_thread(path.write_text, "\n".join([lines[0], f"orchestrator: {{refiner: '{NOWHERE}'}}"]))
    ended = await ensemble("health", "--json", folder=tmp_path)
    assert (ended.code, json.loads(ended.text)["services"]["refiner"]["ready"]) == (3, "UNAVAILABLE")


async def test_check_config_prints_the_result_or_every_mistake(tmp_path: Path) -> None:
    """Secrets are masked; mistakes come all at once, with their paths, and end with 2."""
    path = tmp_path / "ensemble.yaml"
    await asyncio.to_thread(
        path.write_text,
        "providers: {mine: {kind: openai, base_url: 'https://llm.example.com/v1', api_key: {env: MY_KEY}}}\nmodels: {m: {provider: mine, name: x}}",
    )
    ended = await ensemble("check-config", folder=tmp_path, environ={"MY_KEY": "sk-very-secret"})
    assert ended.code == 0
    assert "llm.example.com" in ended.text
    assert "sk-very-secret" not in ended.text + ended.err
    await asyncio.to_thread(path.write_text, "gatway: {}\nlimiter: {grace: fast}")
    ended = await ensemble("check-config", "--config", str(path))
    assert ended.code == 2
    assert "gatway" in ended.err
    assert "limiter.grace" in ended.err


async def test_check_config_reads_the_keys_file(tmp_path: Path) -> None:
    """What would stop the gateway's start is a mistake here too: a file that is not there, and one that does not go with the tenants."""
    await asyncio.to_thread((tmp_path / "ensemble.yaml").write_text, "gateway: {keys_file: keys.yaml}\ntenants: {team-a: {}}")
    ended = await ensemble("check-config", folder=tmp_path)
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.startswith("gateway.keys_file (")
    await asyncio.to_thread((tmp_path / "keys.yaml").write_text, "taem-a: []")
    ended = await ensemble("check-config", folder=tmp_path)
    assert (ended.code, ended.err.endswith('names no tenant; did you mean "team-a"?\n')) == (2, True)
    await asyncio.to_thread((tmp_path / "keys.yaml").write_text, "team-a: []")
    assert (await ensemble("check-config", folder=tmp_path)).code == 0


@pytest.mark.parametrize("command", [("check-config",), ("up", "--port-base", "0")])
async def test_profiles_are_held_against_the_strategies(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A strategy that there is not, and parameters that one does not take, are told with their paths before anything runs."""
    await asyncio.to_thread(
        (tmp_path / "ensemble.yaml").write_text,
        "profiles:\n  default: {strategy: fussion}\n  p:\n    strategy: moa\n    members: [{model: smollm2}]\n    refiner: {model: smollm2}\n"
        "    parameters: {layers: hunter2, odd: hunter3}\n",
    )
    ended = await ensemble(*command, folder=tmp_path)
    assert (ended.code, ended.out) == (2, b"")
    told = {line.partition(" ")[0]: line for line in ended.err.splitlines()}
    assert list(told) == ["profiles.default.strategy", "profiles.p.parameters.layers", "profiles.p.parameters.odd"]
    assert 'did you mean "fusion"?' in told["profiles.default.strategy"]
    assert "line 7, column 18" in told["profiles.p.parameters.layers"]
    assert "hunter" not in ended.err


@pytest.mark.parametrize("key", ["OPENAI_API_KEY", "OPENROUTER_API_KEY", "NONE"])
async def test_the_packaged_configuration_is_right(tmp_path: Path, key: str) -> None:
    """Whatever key is at hand, the strategies take what the package brings."""
    environ = {"OPENAI_API_KEY": "", "OPENROUTER_API_KEY": "", key: "k"}
    assert (await ensemble("check-config", folder=tmp_path, environ=environ)).code == 0


async def test_other_commands_do_not_mind_a_strategy_that_they_do_not_use(services: Stack, tmp_path: Path) -> None:
    """Who only looks up an address is not kept from it."""
    address = services.running.gateway.address
    text = f"gateway: {{listen: '{address}'}}\nprofiles: {{default: {{strategy: fussion}}}}\n"
    await asyncio.to_thread((tmp_path / "ensemble.yaml").write_text, text)
    assert (await ensemble("profiles", folder=tmp_path, environ={"ENSEMBLE_GATEWAY": ""})).code == 0


async def test_help_names_the_exit_codes() -> None:
    """A script's author finds them."""
    ended = await ensemble("--help")
    assert ended.code == 0
    assert "130 interrupted" in ended.text
