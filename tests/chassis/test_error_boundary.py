"""What leaves a server when its handler raises, as a real client sees it."""

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import error_details_pb2

from ensemble.v1 import limiter_service_pb2
from services.chassis.errors import EnsembleError, FieldViolation, InvalidInput, NoQuorum, RemoteError
from services.chassis.status import from_rpc_error, to_status
from tests.support.rich_errors import rich, violations
from tests.support.scripted_rpcs import Caller, Context, calling, chat, collect, serving, stream, unary

SECRET = "a prompt that nobody may read"


class Raising:
    """A service whose methods, one of each kind, raise what they are told to."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.methods = {"Unary": unary(self._unary), "Stream": stream(self._stream), "Collect": collect(self._unary), "Chat": chat(self._stream)}

    async def _unary(self, _: object, __: Context) -> bytes:
        raise self._error

    async def _stream(self, _: object, __: Context) -> AsyncIterator[bytes]:
        yield b"first"
        raise self._error


async def read(call: "grpc.aio.UnaryStreamCall[bytes, bytes]") -> list[bytes]:
    """Read a stream to its end."""
    return [response async for response in call]


async def requests() -> AsyncIterator[bytes]:
    """Send one request."""
    yield b"one"


async def errors_of(caller: Caller) -> dict[str, grpc.aio.AioRpcError]:
    """Call each method and return how it failed."""
    calls = {
        "Unary": caller.unary("Unary"),
        "Stream": read(caller.stream("Stream")),
        "Collect": caller.collect("Collect", requests()),
        "Chat": read(caller.chat("Chat", requests())),
    }
    failed: dict[str, grpc.aio.AioRpcError] = {}
    for name, call in calls.items():
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        failed[name] = raised.value
    return failed


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the boundary logged; gRPC has words of its own now and then."""
    return [record for record in caplog.records if record.name == "services.chassis.error_boundary"]


def wrong_protobuf() -> Exception:
    """Return what protobuf raises for a value that a field cannot take."""
    try:
        limiter_service_pb2.AcquirePermitsRequest(min_granted=2**40)
    except ValueError as error:
        return error
    raise AssertionError


async def test_a_domain_error_leaves_with_its_status_and_details() -> None:
    """Each kind of method, also a stream that has already said something."""
    error = InvalidInput([FieldViolation(field="messages[0].text", description="is empty")])
    async with serving(**Raising(error).methods) as server, calling(server.address) as caller:
        for failed in (await errors_of(caller)).values():
            assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert failed.details() == str(error)
            assert violations(failed) == [("messages[0].text", "is empty")]


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        wrong_protobuf(),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), SECRET),
        StopAsyncIteration(SECRET),
        EnsembleError(SECRET),
        RemoteError(code="NO SUCH CODE", message=SECRET, details=b""),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_anything_else_leaves_as_internal_with_an_id(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets a fixed text with an id; the log has type and place under that id; the exception's text is in neither."""
    async with serving(**Raising(error).methods) as server, calling(server.address) as caller:
        failures = await errors_of(caller)
    for failed in failures.values():
        assert failed.code() is grpc.StatusCode.INTERNAL
        info = error_details_pb2.ErrorInfo()
        (detail,) = rich(failed).details
        detail.Unpack(info)
        request_id = info.metadata["request_id"]
        assert failed.details() == f"internal error; request {request_id}"
        assert SECRET not in repr(failed)
        (record,) = [record for record in caplog.records if getattr(record, "request_id", None) == request_id]
        assert record.levelno == logging.ERROR
        assert ".py:" in record.__dict__["where"]
    assert SECRET not in caplog.text
    assert len(ours(caplog)) == len(failures)


async def test_the_log_names_the_place_where_it_was_raised(caplog: pytest.LogCaptureFixture) -> None:
    """The last of the places is the line that raised, without the path of the machine."""
    async with serving(**Raising(ZeroDivisionError()).methods) as server, calling(server.address) as caller:
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.unary("Unary")
    (record,) = ours(caplog)
    assert record.getMessage() == "unexpected ZeroDivisionError"
    places = record.__dict__["where"].split()
    assert places[-1].startswith("test_error_boundary.py:")
    assert len(places) <= 3


async def test_what_a_handler_aborts_with_passes_untouched(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that speaks gRPC itself is taken at its word, and that is no bug to be logged."""

    async def abort(_: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "there is one", (("x-own", "1"),))

    async with serving(Ask=unary(abort)) as server, calling(server.address) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Ask")
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.ALREADY_EXISTS, "there is one")
    assert dict(raised.value.trailing_metadata() or ()) == {"x-own": "1"}
    assert ours(caplog) == []


async def test_an_unknown_method_is_gRPCs_own_affair() -> None:  # noqa: N802 - its name
    """UNIMPLEMENTED as gRPC says it, with no details of ours."""
    async with serving() as server, calling(server.address) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Nothing")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "grpc-status-details-bin" not in dict(raised.value.trailing_metadata() or ())


async def test_a_cancellation_passes() -> None:
    """The handler of a caller who has gone is cancelled, and nothing turns that into an error."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: bytes, __: Context) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with serving(Ask=unary(hang)) as server, calling(server.address) as caller:
        call = caller.unary("Ask")
        await entered.wait()
        call.cancel()
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_details_outlast_two_hops() -> None:
    """A server that passes on what another refused: the caller reads the first one's details."""
    error = NoQuorum(needed=2, succeeded=0, outcomes={"a": "TIMEOUT", "b": "RATE_LIMITED"}, retryable=True, retry_after_seconds=1.5)

    async with serving(**Raising(error).methods) as inner, calling(inner.address) as to_inner:

        async def forward(_: bytes, __: Context) -> bytes:
            try:
                return bytes(await to_inner.unary("Unary"))
            except grpc.aio.AioRpcError as refused:
                raise from_rpc_error("inner", refused) from refused

        async with serving(Ask=unary(forward)) as outer, calling(outer.address) as caller:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.unary("Ask")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == str(error)
    assert rich(raised.value).SerializeToString() == to_status(error).details


async def test_the_greatest_details_arrive_whole() -> None:
    """Text and details at their limits, in letters that the wire must escape, fit the trailers."""
    error = InvalidInput([FieldViolation(field="ü" * 100, description="\N{SNOWMAN}" * 100)] * 50)
    async with serving(**Raising(error).methods) as server, calling(server.address) as caller:
        for failed in (await errors_of(caller)).values():
            assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert rich(failed).SerializeToString() == to_status(error).details
