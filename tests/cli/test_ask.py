"""`ensemble ask` before a gateway that does as a test says: streams, signals, terminals, errors, odd input."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from typer.testing import CliRunner

from ensemble.v1 import gateway_service_pb2, run_event_pb2, strategy_options_pb2
from services.cli.exit_codes import CommandError
from services.cli.gateway_client import MAX_MESSAGE_BYTES
from services.cli.main import app
from services.cli.question import prompt_from
from tests.support.command_line import NOWHERE, Terminal, begin, ended, ensemble
from tests.support.fake_gateway import FakeGateway, details, fake_gateway

NASTY = "red \x1b[31m \x1b]0;title\x07 [bold]no markup[/bold] \u202e end"


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    """Run a gateway."""
    async with fake_gateway() as running:
        yield running


async def test_into_a_pipe_the_answer_goes_as_it_is(gateway: FakeGateway) -> None:
    """Not a byte is changed, markup and escapes included; what had been said before the answer was whole is not in it."""
    gateway.answer = NASTY
    gateway.deltas = [run_event_pb2.AnswerDelta(text="half an "), run_event_pb2.AnswerDelta(text=NASTY, restart=True)]
    done = await ensemble("ask", "What?", "-g", gateway.address)
    assert (done.code, done.out) == (0, f"{NASTY}\n".encode())


async def test_an_answer_that_ends_its_line_gets_no_other_end(gateway: FakeGateway) -> None:
    """A newline is added only where there is none."""
    gateway.answer = "a line\n"
    assert (await ensemble("ask", "What?", "-g", gateway.address)).out == b"a line\n"


async def test_progress_cannot_be_forged(gateway: FakeGateway) -> None:
    """Names and texts of others reach standard error without escapes, and their brackets are no markup."""
    gateway.texts = {"alpha": NASTY}
    done = await ensemble("ask", "What?", "-g", gateway.address, "--candidates")
    assert done.code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(done.err)
    assert "[bold]no markup[/bold]" in done.err


async def test_a_terminal_shows_no_escape_of_a_model(gateway: FakeGateway) -> None:
    """On a terminal the answer appears as it grows, controls made visible, and a fresh start says so."""
    gateway.answer = "whole"
    gateway.deltas = [run_event_pb2.AnswerDelta(text="half\x1b[2J"), run_event_pb2.AnswerDelta(text="whole", restart=True)]
    terminal = Terminal()
    process = await begin("ask", "What?", "-g", gateway.address, stdout=terminal.theirs)
    terminal.begun()
    shown = await terminal.shown()
    done = await ended(process)
    assert (done.code, shown) == (0, "half\ufffd[2J\r\nwhole\r\n")
    assert "starts anew" in done.err


async def test_a_terminal_shows_members_while_they_work(gateway: FakeGateway) -> None:
    """Where standard error is a terminal the members stand in a table that is redrawn; the cursor comes back, also after SIGTERM."""
    gateway.hanging = True
    terminal = Terminal()
    process = await begin("ask", "What?", "-g", gateway.address, stderr=terminal.theirs, environ={"TERM": "xterm"})
    terminal.begun()
    await terminal.shows("asked, 1 s")
    process.terminate()
    shown = await terminal.shown()
    assert (await ended(process)).code == 143
    await gateway.cancelled.wait()
    assert "run run-1, trace none: fusion of 1 calls" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


@pytest.mark.parametrize(("options", "out"), [((), b""), (("--json",), b"INTERRUPTED")])
async def test_ctrl_c_cancels_the_call(gateway: FakeGateway, options: tuple[str, ...], out: bytes) -> None:
    """The gateway sees the cancellation; the command ends with 130, for a script with an object that says so."""
    gateway.hanging = True
    process = await begin("ask", "What?", "-g", gateway.address, *options)
    await gateway.arrived.wait()
    process.send_signal(signal.SIGINT)
    done = await ended(process)
    await gateway.cancelled.wait()
    assert done.code == 130
    assert (json.loads(done.out)["error"]["code"].encode() if options else done.out) == out
    assert "Traceback" not in done.err


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_a_closed_pipe_is_quiet(gateway: FakeGateway, options: tuple[str, ...]) -> None:
    """Whoever stops reading gets exit code 1 and not a word."""
    reading, writing = os.pipe()
    os.close(reading)
    process = await begin("ask", "What?", "-g", gateway.address, *options, stdout=writing)
    os.close(writing)
    done = await ended(process)
    assert (done.code, "roken" in done.err, "Traceback" in done.err) == (1, False, False)


async def test_closed_streams_are_quiet(gateway: FakeGateway) -> None:
    """Where nobody reads what is told, the exit code still tells it."""
    reading, writing = os.pipe()
    os.close(reading)
    process = await begin("ask", "What?", "-g", NOWHERE, stderr=writing)
    os.close(writing)
    assert (await ended(process)).code == 3
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", f'"$0" -m services.cli ask What? -g {gateway.address} >&- 2>&-; echo $?', sys.executable, stdout=asyncio.subprocess.PIPE
    )
    assert (await ended(shell)).out == b"0\n"


async def test_a_full_disk_is_named() -> None:
    """Standard output that takes nothing ends with 1 and a plain sentence."""
    full = await asyncio.to_thread(os.open, "/dev/full", os.O_WRONLY)
    process = await begin("check-config", stdout=full, environ={"ENSEMBLE_CONFIG": ""})
    os.close(full)
    done = await ended(process)
    assert (done.code, done.err) == (1, "No space left on device\n")


async def test_output_in_an_encoding_that_lacks_characters(gateway: FakeGateway) -> None:
    """They are replaced, and nothing breaks, on either stream; JSON loses nothing."""
    gateway.answer = "Zürich → Bern"
    gateway.texts = {"züri": "→"}
    narrow = {"PYTHONIOENCODING": "latin-1"}
    done = await ensemble("ask", "Où?", "-g", gateway.address, "--candidates", environ={**narrow, "PYTHONIOENCODING": "ascii"})
    assert (done.code, done.out) == (0, b"Z?rich ? Bern\n")
    done = await ensemble("ask", "Où?", "-g", gateway.address, environ=narrow)
    assert (done.code, done.out) == (0, "Zürich ? Bern\n".encode("latin-1"))
    done = await ensemble("ask", "Où?", "-g", gateway.address, "--json", environ=narrow)
    assert json.loads(done.out)["answer"] == gateway.answer
    assert [request.prompt for request in gateway.requests] == ["Où?"] * 3


async def test_the_trace_is_known_to_the_user(gateway: FakeGateway) -> None:
    """Each call begins a sampled trace of its own, which is told with the answer and with an error."""
    done = await ensemble("ask", "What?", "-g", gateway.address)
    gateway.refusal = (grpc.StatusCode.INTERNAL, "internal error; request 7", b"")
    failed = await ensemble("ask", "What?", "-g", gateway.address)
    as_json = await ensemble("ask", "What?", "-g", gateway.address, "--json")
    assert all(parent.startswith("00-") and parent.endswith("-01") for parent in gateway.traceparents)
    traces = [parent.split("-")[1] for parent in gateway.traceparents]
    assert len(set(traces)) == 3
    assert f"trace {traces[0]}" in done.err
    assert (failed.code, f"(INTERNAL, trace {traces[1]})" in failed.err) == (1, True)
    assert json.loads(as_json.out)["error"]["trace_id"] == traces[2]


async def test_a_cached_answer_is_told_to_be_one(gateway: FakeGateway) -> None:
    """To a person with its age, to a script as the receipt has it; an answer that is not cached has no age."""
    made = await ensemble("ask", "What?", "-g", gateway.address, "--json")
    gateway.cached_age = Duration(seconds=5)
    person = await ensemble("ask", "What?", "-g", gateway.address)
    script = await ensemble("ask", "What?", "-g", gateway.address, "--json")
    assert (person.text.strip(), "cached: made 5.0 s ago" in person.err) == (gateway.answer, True)
    receipts = [json.loads(done.out)["receipt"] for done in (made, script)]
    assert [(receipt["cached"], receipt.get("cached_age"), len(receipt["calls"])) for receipt in receipts] == [(False, None, 1), (True, "5s", 0)]


async def test_an_error_is_told_in_full(gateway: FakeGateway) -> None:
    """Code, reason, fields, outcomes and the wait, in words and as JSON; the streams stay apart; forged text stays text."""
    gateway.refusal = (
        grpc.StatusCode.UNAVAILABLE,
        "1 of 2",
        details(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=7)), reason="NO_QUORUM", needed="2", succeeded="1", **{"candidate.a": "X:\x1b[2J"}),
    )
    done = await ensemble("ask", "What?", "-g", gateway.address)
    assert (done.code, done.out) == (3, b"")
    assert done.err.splitlines()[-4:-1] == ["too few models answered: 1 of 2 needed", "  a: X: \ufffd[2J", "  try again in 7.0 s"]
    done = await ensemble("ask", "What?", "-g", gateway.address, "--json")
    error = json.loads(done.out)["error"]
    assert (done.code, done.err) == (3, "")
    assert (error["code"], error["reason"], error["retry_after_seconds"], error["metadata"]["needed"]) == ("UNAVAILABLE", "NO_QUORUM", 7.0, "2")


async def test_a_gateway_that_stops_is_not_available(gateway: FakeGateway) -> None:
    """A call that the server cancelled may be tried again, so it ends with 3, and is no interruption of ours."""
    gateway.refusal = (grpc.StatusCode.CANCELLED, "", b"")
    for options in ((), ("--json",)):
        done = await ensemble("ask", "What?", "-g", gateway.address, *options)
        assert (done.code, "Traceback" in done.err) == (3, False)


async def test_a_stream_without_an_answer_has_failed(gateway: FakeGateway) -> None:
    """Neither an end without a response nor an empty answer counts as success."""
    gateway.finishing = False
    done = await ensemble("ask", "What?", "-g", gateway.address)
    assert (done.code, "without an answer" in done.err) == (1, True)
    gateway.finishing, gateway.answer = True, ""
    assert (await ensemble("ask", "What?", "-g", gateway.address)).code == 1


async def test_a_file_that_cannot_be_written_does_not_lose_the_answer(gateway: FakeGateway, tmp_path: Path) -> None:
    """The name is taken while the models work: the command fails, the other file stays, and the answer is still told."""
    gateway.hanging = True
    for options in ((), ("--json",)):
        path = tmp_path / f"a{len(options)}"
        gateway.arrived.clear()
        process = await begin("ask", "What?", "-g", gateway.address, "-o", str(path), *options)
        await gateway.arrived.wait()
        await asyncio.to_thread(path.write_text, "theirs")
        gateway.release()
        done = await ended(process)
        assert done.code == 2
        assert await asyncio.to_thread(path.read_text) == "theirs"
        if options:
            told = json.loads(done.out)
            assert (told["error"]["code"], told["response"]["answer"]) == ("WRONG", "an answer")
            assert "exists" in told["error"]["message"]
        else:
            assert done.out == b"an answer\n"
            assert "Receipt" in done.err
            assert "exists" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("What?", "--member", "\udcff"), "--member is not valid Unicode"),
        (("What?", "--quorum", str(2**40)), "out of range"),
        (("What?", "--max-output-tokens", str(-(2**40))), "out of range"),
        (("--system", "a" * (MAX_MESSAGE_BYTES - 10), "What?"), "longer than"),
        (("--file", "/dev/zero"), "longer than"),
        (("What?", "-g", "no address"), "HOST:PORT"),
        (("What?", "--parameter", "layers"), "--parameter must be NAME=VALUE"),
        (("What?", "--parameter", "a=1", "--parameter", "a=2"), "--parameter a is given twice"),
        (("What?", "--schema", "/dev/zero"), "--schema /dev/zero: is larger"),
    ],
)
def test_what_no_request_can_hold_is_refused_here(arguments: tuple[str, ...], words: str) -> None:
    """Broken Unicode, numbers out of range, texts above the message limit and addresses that are none end with 2, before anything is sent."""
    done = CliRunner().invoke(app, ["ask", "-g", NOWHERE, *arguments])
    assert (done.exit_code, words in done.stderr, done.stdout) == (2, True, "")
    done = CliRunner().invoke(app, ["ask", "-g", NOWHERE, *arguments, "--json"])
    error = json.loads(done.stdout)["error"]
    assert (done.exit_code, error["code"], words in error["message"], done.stderr) == (2, "WRONG", True, "")


async def test_what_is_said_of_strategy_cost_and_attempts_reaches_the_gateway(gateway: FakeGateway, tmp_path: Path) -> None:
    """Each option as the field that it means, and the schema as it stands in its file."""
    schema = '{\n "type": "object", "required": ["größe"]}\n'
    file = tmp_path / "schema.json"
    await asyncio.to_thread(file.write_text, schema, encoding="utf-8")
    options = ("--parameter", "layers=2", "--parameter", 'judges=["a"]', "--parameter", "rubric=be brief", "--schema", str(file), "--max-cost", "0.29")
    done = await ensemble("ask", "What?", "-g", gateway.address, *options, "--hedge-delay", "1.5", "--retries", "0")
    assert done.code == 0
    (request,) = gateway.requests
    assert MessageToDict(request.options.parameters) == {"layers": 2.0, "judges": ["a"], "rubric": "be brief"}
    assert (request.response_schema, request.max_cost_micro_usd) == (schema, 290_000)
    assert request.options.hedge == strategy_options_pb2.HedgePolicy(delay=Duration(seconds=1, nanos=500_000_000))
    assert request.options.retry == strategy_options_pb2.RetryPolicy(max_attempts=1)


async def test_what_is_not_said_is_left_to_the_profile(gateway: FakeGateway) -> None:
    """None of the options is set that was not given, so that the profile's own hold."""
    await ensemble("ask", "What?", "-g", gateway.address)
    (request,) = gateway.requests
    assert request == gateway_service_pb2.GenerateRequest(prompt="What?")


def test_a_schema_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is missing, too large, empty or no text ends with 2, and the option and the file are named."""
    for name, content, words in (
        ("missing", None, "No such file or directory"),
        ("large", b"{" + b" " * (64 << 10), "is larger than 64 KiB"),
        ("empty", b" \n", "is empty"),
        ("latin", b'{"a": "\xe9"}', "is not UTF-8 (byte 7)"),
    ):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        done = CliRunner().invoke(app, ["ask", "What?", "-g", NOWHERE, "--schema", str(file)])
        assert (done.exit_code, done.stderr) == (2, f"--schema {file}: {words}\n")


async def test_a_schema_may_begin_with_a_byte_order_mark(gateway: FakeGateway, tmp_path: Path) -> None:
    """It is no part of the text; the largest file is taken."""
    file = tmp_path / "schema.json"
    await asyncio.to_thread(file.write_bytes, b"\xef\xbb\xbf{}" + b" " * ((64 << 10) - 5))
    assert (await ensemble("ask", "What?", "-g", gateway.address, "--schema", str(file))).code == 0
    assert gateway.requests[0].response_schema.rstrip() == "{}"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--max-cost", value) for value in ("0", "-1", "nan", "inf", "0.0000001", "1000001", "a")),
        *(("--hedge-delay", value) for value in ("0", "-1", "nan", "601", "1s")),
        *(("--retries", value) for value in ("-1", "5", "1.5")),
    ],
)
def test_numbers_out_of_range_are_a_wrong_command_line(option: str, value: str) -> None:
    """The option is named, and nothing is sent."""
    done = CliRunner().invoke(app, ["ask", "What?", "-g", NOWHERE, option, value], env={"COLUMNS": "200", "TERM": "dumb"})
    assert (done.exit_code, option in done.stderr) == (2, True)


async def test_the_smallest_and_the_largest_bounds_are_taken(gateway: FakeGateway) -> None:
    """One millionth of a USD, a millisecond, four retries; and the other ends."""
    for options in (("--max-cost", "0.000001", "--hedge-delay", "0.001", "--retries", "4"), ("--max-cost", "1000000", "--hedge-delay", "600")):
        assert (await ensemble("ask", "What?", "-g", gateway.address, *options)).code == 0
    least, most = gateway.requests
    assert (least.max_cost_micro_usd, least.options.hedge.delay.ToMilliseconds(), least.options.retry.max_attempts) == (1, 1, 5)
    assert (most.max_cost_micro_usd, most.options.hedge.delay.ToSeconds()) == (10**12, 600)


async def test_an_answer_that_does_not_satisfy_the_schema_has_failed(gateway: FakeGateway) -> None:
    """Exit code 1, for no waiting heals it; what is wrong with it is told, for a script with what it cost."""
    text = "the answer does not satisfy the schema that was asked for, also after a repair: at /a: is no number"
    gateway.refusal = (grpc.StatusCode.FAILED_PRECONDITION, text, details(reason="ANSWER_INVALID", problem="at /a: is no number", cost_micro_usd="12"))
    done = await ensemble("ask", "What?", "-g", gateway.address)
    assert (done.code, done.out, text in done.err) == (1, b"", True)
    done = await ensemble("ask", "What?", "-g", gateway.address, "--json")
    error = json.loads(done.out)["error"]
    assert (error["reason"], error["metadata"]) == ("ANSWER_INVALID", {"problem": "at /a: is no number", "cost_micro_usd": "12"})


async def test_a_quota_that_comes_back_ends_with_3_and_one_that_never_does_with_1(gateway: FakeGateway) -> None:
    """The limit stands with its value, and the wait where there is one."""
    quota = error_details_pb2.QuotaFailure(violations=[{"subject": "tenant/t/concurrency", "description": "the limit of 2 calls at once is reached"}])
    told = ["the quota does not allow it", "  tenant/t/concurrency: the limit of 2 calls at once is reached"]
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=7))
    gateway.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", details(quota, retry, reason="QUOTA_EXHAUSTED"))
    done = await ensemble("ask", "What?", "-g", gateway.address)
    assert (done.code, done.err.splitlines()[-4:-1]) == (3, [*told, "  try again in 7.0 s"])
    gateway.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", details(quota, reason="QUOTA_EXHAUSTED"))
    done = await ensemble("ask", "What?", "-g", gateway.address)
    assert (done.code, done.err.splitlines()[-3:-1]) == (1, told)


async def test_arguments_that_are_no_utf_8_are_refused() -> None:
    """As a shell passes them on from a file name or a terminal of another encoding."""
    done = await ensemble("ask", b"caf\xe9", "-g", NOWHERE)
    assert (done.code, done.out, done.err) == (2, b"", "the prompt is not valid Unicode\n")


@pytest.mark.parametrize("timeout", ["nan", "inf", "0", "-1", "1e30"])
def test_deadlines_must_be_lengths_of_time(timeout: str) -> None:
    """What is none is a wrong command line."""
    assert CliRunner().invoke(app, ["ask", "What?", "-g", NOWHERE, "--timeout", timeout]).exit_code == 2


async def test_a_closed_standard_input_is_named(gateway: FakeGateway) -> None:
    """Nothing to read from is a mistake of the caller."""
    shell = await asyncio.create_subprocess_exec(
        "sh", "-c", f'exec "$0" -m services.cli ask - -g {gateway.address} <&-', sys.executable, stderr=asyncio.subprocess.PIPE
    )
    done = await ended(shell)
    assert (done.code, done.err) == (2, "standard input is closed\n")


async def test_a_proxy_of_the_environment_is_not_asked(gateway: FakeGateway) -> None:
    """What is meant for web browsing does not stand between the command and its gateway."""
    proxy = f"http://{NOWHERE}"
    assert (await ensemble("ask", "What?", "-g", gateway.address, environ={"http_proxy": proxy, "https_proxy": proxy, "grpc_proxy": proxy})).code == 0


async def test_the_gateway_is_found_by_option_environment_and_configuration(gateway: FakeGateway, tmp_path: Path) -> None:
    """In this order; an empty variable counts as none, and a listener on every interface is asked on this one."""
    assert (await ensemble("ask", "What?", environ={"ENSEMBLE_GATEWAY": gateway.address}, folder=tmp_path)).code == 0
    assert (await ensemble("ask", "What?", "-g", gateway.address, environ={"ENSEMBLE_GATEWAY": NOWHERE})).code == 0
    port = gateway.address.rpartition(":")[2]
    path = tmp_path / "other.yaml"
    await asyncio.to_thread(path.write_text, f"gateway: {{listen: '0.0.0.0:{port}'}}")
    assert (await ensemble("ask", "What?", "--config", str(path), environ={"ENSEMBLE_GATEWAY": ""})).code == 0
    await asyncio.to_thread(path.write_text, "gateway: {listen: '127.0.0.1:0'}")
    done = await ensemble("ask", "What?", "--config", str(path), "--json", environ={"ENSEMBLE_GATEWAY": ""})
    assert (done.code, "--gateway" in json.loads(done.out)["error"]["message"]) == (2, True)


async def test_a_wrong_configuration_is_told_as_json_too(tmp_path: Path) -> None:
    """Each mistake by its path."""
    path = tmp_path / "ensemble.yaml"
    await asyncio.to_thread(path.write_text, "gatway: {}\nlimiter: {grace: fast}")
    done = await ensemble("models", "--json", folder=tmp_path)
    error = json.loads(done.out)["error"]
    assert (done.code, error["code"], sorted(error["violations"])) == (2, "WRONG", ["gatway", "limiter.grace"])


def test_one_prompt_is_wanted() -> None:
    """An empty argument is a prompt; whether it will do is the gateway's to say."""
    assert prompt_from("", None) == ""
    with pytest.raises(CommandError, match="give a prompt"):
        prompt_from(None, None)
