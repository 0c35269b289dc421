"""What is in the log, and what never is."""

import asyncio
import contextlib
import io
import json
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry import context as otel_context

from services.chassis.logs import set_up_logs
from services.chassis.trace_context import extract
from tests.support.scripted_rpcs import SERVICE, Caller, Context, calling, serving, stream, unary

pytestmark = pytest.mark.usefixtures("restored_logs")

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
METADATA = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),)
SECRET = "a prompt that nobody may read"


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture
def stream_of_lines() -> io.StringIO:
    """Collect the log."""
    text = io.StringIO()
    set_up_logs(text)
    return text


def lines(text: io.StringIO) -> list[dict[str, Any]]:
    """Return the log's lines, each of which is a JSON object."""
    return [json.loads(line) for line in text.getvalue().splitlines()]


async def of_rpcs(text: io.StringIO, count: int) -> list[dict[str, Any]]:
    """Wait for so many lines about RPCs: a server writes its line after the caller has the answer."""
    async with asyncio.timeout(10):
        while len(found := [line for line in lines(text) if line["logger"] == "ensemble.rpc"]) < count:
            await asyncio.sleep(0.01)
    return found


async def test_each_rpc_is_one_line(stream_of_lines: io.StringIO) -> None:
    """Method, code, seconds and the ids of the trace; neither request nor answer nor the text of an error."""

    async def answer(request: bytes, _: Context) -> bytes:
        return request

    async def refuse(_: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, SECRET)

    async def break_down(_: bytes, __: Context) -> bytes:
        raise ValueError(SECRET)

    async with serving(Answer=unary(answer), Refuse=unary(refuse), Break=unary(break_down)) as server, calling(server.address) as caller:
        await caller.unary("Answer", SECRET.encode(), metadata=METADATA)
        for method in ("Refuse", "Break"):
            with pytest.raises(grpc.aio.AioRpcError):
                await caller.unary(method, SECRET.encode(), metadata=METADATA)
        told = await of_rpcs(stream_of_lines, 3)
    assert [(line["rpc"], line["code"], line["level"]) for line in told] == [
        (f"{SERVICE}/{method}", code, "INFO") for method, code in (("Answer", "OK"), ("Refuse", "NOT_FOUND"), ("Break", "INTERNAL"))
    ]
    for line in told:
        assert line["message"] == f"{line['rpc']} {line['code']}"
        assert 0 <= line["seconds"] < 60
        assert (line["trace_id"], line["span_id"]) == (TRACE_ID, SPAN_ID)
    (bug,) = [line for line in lines(stream_of_lines) if "request_id" in line]
    assert (bug["message"], bug["trace_id"], bug["level"]) == ("unexpected ValueError", TRACE_ID, "ERROR")
    assert SECRET not in stream_of_lines.getvalue()


async def test_probes_are_not_logged(stream_of_lines: io.StringIO) -> None:
    """Health checks come every few seconds and say nothing."""
    async with serving() as server, grpc.aio.insecure_channel(server.address) as channel:
        probe: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        await probe(b"", timeout=5)
    assert {line["logger"] for line in lines(stream_of_lines)} == {"services.chassis.server"}


@pytest.mark.parametrize("large", [False, True], ids=["while it waits", "while it writes"])
async def test_a_stream_that_is_cancelled_keeps_its_trace(stream_of_lines: io.StringIO, large: bool) -> None:
    """Where the caller leaves while the stream is being written, its end comes in another task; the line has the ids all the same."""

    async def count(_: bytes, __: Context) -> AsyncIterator[bytes]:
        yield b"first"
        if not large:
            await asyncio.Event().wait()
        while True:
            yield bytes(1 << 20)

    async with serving(Count=stream(count)) as server, calling(server.address) as caller:
        call = caller.stream("Count", metadata=METADATA)
        assert await call.read() == b"first"
        call.cancel()
        (told,) = await of_rpcs(stream_of_lines, 1)
    assert (told["code"], told["trace_id"]) == ("CANCELLED", TRACE_ID)


async def test_a_code_that_a_handler_sets_is_told(stream_of_lines: io.StringIO) -> None:
    """Also one that is set without raising, by its name or as a number, and one that nobody knows."""
    codes: list[Any] = [grpc.StatusCode.ABORTED, 5, 99]

    async def end(request: bytes, context: Context) -> bytes:
        context.set_code(codes[int(request)])
        return b""

    async with serving(End=unary(end)) as server, calling(server.address) as caller:
        for number in range(len(codes)):
            with pytest.raises(grpc.aio.AioRpcError):
                await caller.unary("End", str(number).encode())
        told = await of_rpcs(stream_of_lines, len(codes))
    assert [line["code"] for line in told] == ["ABORTED", "NOT_FOUND", "UNKNOWN"]


async def test_a_handler_that_goes_on_after_its_abort_is_unknown(stream_of_lines: io.StringIO) -> None:
    """A call has one abort; a handler that swallows its own and then breaks down is a bug that the error boundary cannot name any more."""

    async def abort_and_go_on(_: bytes, context: Context) -> bytes:
        with contextlib.suppress(grpc.aio.AbortError):
            await context.abort(grpc.StatusCode.ABORTED, "first")
        raise ValueError(SECRET)

    async with serving(Ask=unary(abort_and_go_on)) as server, calling(server.address) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Ask")
        (told,) = await of_rpcs(stream_of_lines, 1)
    assert raised.value.code() is grpc.StatusCode.ABORTED
    assert told["code"] == "UNKNOWN"
    assert SECRET not in stream_of_lines.getvalue()


async def test_a_deadline_is_told_apart_from_a_cancellation(stream_of_lines: io.StringIO) -> None:
    """Both end the handler in the same way."""
    entered = asyncio.Event()

    async def hang(_: bytes, __: Context) -> bytes:
        entered.set()
        await asyncio.Event().wait()
        return b""

    async with serving(Hang=unary(hang)) as server, calling(server.address) as caller:
        for timeout in (None, 30.0):
            entered.clear()
            call = caller.unary("Hang", timeout=timeout)
            await entered.wait()
            call.cancel()
        with pytest.raises(grpc.aio.AioRpcError):
            await Caller(caller._channel).unary("Hang", timeout=0.1)
        told = await of_rpcs(stream_of_lines, 3)
    assert [line["code"] for line in told] == ["CANCELLED", "CANCELLED", "DEADLINE_EXCEEDED"]


def test_an_exception_is_told_by_its_type_alone(stream_of_lines: io.StringIO) -> None:
    """Its text may hold what must not be logged."""
    log = logging.getLogger("services.something")
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("it broke")
    (line,) = lines(stream_of_lines)
    assert (line["message"], line["exception"], line["level"]) == ("it broke", "ValueError", "ERROR")
    assert SECRET not in stream_of_lines.getvalue()


async def test_what_asyncio_says_of_a_lost_task_holds_no_text(stream_of_lines: io.StringIO) -> None:
    """Its own message repeats the exception; only its first line is taken."""
    loop = asyncio.get_running_loop()
    error = ValueError(SECRET)
    loop.default_exception_handler({"message": "Task exception was never retrieved", "exception": error, "future": error})
    (line,) = lines(stream_of_lines)
    assert (line["message"], line["exception"]) == ("Task exception was never retrieved", "ValueError")
    assert SECRET not in stream_of_lines.getvalue()


async def test_what_asyncio_says_of_a_failed_callback_holds_no_argument(stream_of_lines: io.StringIO) -> None:
    """Not even its two ends, which is how Python shortens a text."""

    def fail(text: str) -> None:
        raise ValueError(text)

    asyncio.get_running_loop().call_soon(fail, "a secret of more than thirty characters")
    await asyncio.sleep(0)
    (line,) = lines(stream_of_lines)
    assert line["exception"] == "ValueError"
    assert line["message"].startswith("Exception in callback ")
    assert "secret" not in line["message"]


def test_libraries_are_heard_from_warnings_on(stream_of_lines: io.StringIO) -> None:
    """Ours from INFO on."""
    for name in ("ensemble.rpc", "services.x", "openai", "httpx2"):
        logging.getLogger(name).info("info of %s", name)
        logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger("openai").warning("a warning")
    assert [line["message"] for line in lines(stream_of_lines)] == ["info of ensemble.rpc", "info of services.x", "a warning"]


def test_only_known_fields_are_added(stream_of_lines: io.StringIO) -> None:
    """What a log call brings along beyond them stays out."""
    logging.getLogger("services.x").info("done", extra={"code": "OK", "prompt": SECRET})
    (line,) = lines(stream_of_lines)
    assert line["code"] == "OK"
    assert set(line) == {"time", "level", "logger", "message", "code"}


def test_a_person_gets_plain_lines() -> None:
    """On a terminal: the time, the level, the words, the few fields that help."""
    terminal = Terminal()
    set_up_logs(terminal)
    logging.getLogger("services.x").info("a call", extra={"rpc": "x", "code": "OK", "seconds": 0.25})
    try:
        raise KeyError(SECRET)
    except KeyError:
        logging.getLogger("services.x").exception("it broke", extra={"request_id": "abc"})
    first, second = terminal.getvalue().splitlines()
    assert first.split(" ", 1)[1] == "info a call seconds=0.25"
    assert second.split(" ", 1)[1] == "error it broke KeyError request_id=abc"


def test_the_default_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is when the logs are set up, not when the module was imported."""
    set_up_logs()
    assert isinstance(logging.getLogger().handlers[0], logging.StreamHandler)
    logging.getLogger("services.x").info("here")
    assert json.loads(capsys.readouterr().err)["message"] == "here"
    assert sys.stderr is not None


def test_ids_come_from_the_current_trace(stream_of_lines: io.StringIO) -> None:
    """Any line that is written while a call is served has them; outside there are none."""
    log = logging.getLogger("services.x")
    token = otel_context.attach(extract(METADATA))
    log.info("inside")
    otel_context.detach(token)
    log.info("outside")
    inside, outside = lines(stream_of_lines)
    assert (inside["trace_id"], inside["span_id"]) == (TRACE_ID, SPAN_ID)
    assert "trace_id" not in outside
