"""A provider that speaks OpenAI's chat completions over real HTTP and does what it is told: answers, hangs, drips, breaks off, lies.

It is written over asyncio streams rather than on a web framework, since a framework would not send what real endpoints send on their bad days.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

SECONDS_TO_WAIT = 5.0


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One request as it came, and how it ended."""

    model: str
    body: dict[str, Any]
    headers: dict[str, str]
    port: int
    """The client's port: the same one means the same connection."""
    started: float
    ended: float | None = None
    disconnected: bool = False
    """Whether the client left before the reply was complete."""


class Reply(Protocol):
    """What the provider does with a request."""

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Send the reply; return whether the connection may be used again."""
        ...


def chunk(delta: dict[str, Any], *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one chunk of a streamed completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "model": "fake", "choices": [choice], **more}


def event(data: object) -> bytes:
    """Return one server-sent event; text and bytes stand as they are."""
    raw = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
    return b"data: " + raw + b"\n\n"


def http(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Return a whole HTTP response with a length."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"HTTP/1.1 {status} Status\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


_EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A good answer, streamed or whole, as it was asked for."""

    text: str = "an answer"
    pieces: int = 2
    delay_seconds: float = 0.0
    gap_seconds: float = 0.0
    """Between two pieces."""
    finish: str = "stop"
    usage: tuple[int, int] | None = (10, 5)
    gate: asyncio.Event | None = None
    """Waited for before anything is sent."""

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Answer."""
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(self.delay_seconds)
        counted = None if self.usage is None else {"prompt_tokens": self.usage[0], "completion_tokens": self.usage[1], "total_tokens": sum(self.usage)}
        if not request.body.get("stream"):
            message = {"role": "assistant", "content": self.text}
            whole = {"id": "chatcmpl-fake", "object": "chat.completion", "model": "fake", "usage": counted}
            body = json.dumps({**whole, "choices": [{"index": 0, "message": message, "finish_reason": self.finish}]}).encode()
            writer.write(http(200, body, {"content-type": "application/json"}))
            await writer.drain()
            return True
        writer.write(_EVENTS_HEAD)
        for piece in _cut(self.text, self.pieces):
            writer.write(_framed(event(chunk({"content": piece}))))
            await writer.drain()
            await asyncio.sleep(self.gap_seconds)
        ending = event(chunk({}, finish=self.finish)) + (b"" if counted is None else event({"choices": [], "usage": counted})) + event("[DONE]")
        writer.write(_framed(ending) + _framed(b""))
        await writer.drain()
        return True


@dataclass(frozen=True, slots=True)
class Status:
    """An HTTP error."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: object = None

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Refuse."""
        body = {"error": {"message": "a provider's words", "code": None}} if self.body is None else self.body
        raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        writer.write(http(self.code, raw, {"content-type": "application/json", **self.headers}))
        await writer.drain()
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Server-sent events as they are given, then an end of some kind."""

    events: Sequence[bytes] = ()
    gap_seconds: float = 0.0
    end: str = "done"
    """done: a proper end; close: the connection just closes; hang: nothing more comes; reset: the connection is reset; garbage: a chunk size that is none."""
    content_type: str = "text/event-stream"
    repeat: int = 1
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Send them."""
        headers = {"content-type": self.content_type, "transfer-encoding": "chunked", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {self.status} Status\r\n{lines}\r\n".encode())
        for _ in range(self.repeat):
            for one in self.events:
                writer.write(_framed(one))
                await writer.drain()
                await asyncio.sleep(self.gap_seconds)
        match self.end:
            case "done":
                writer.write(_framed(b""))
            case "hang":
                await writer.drain()
                await asyncio.Event().wait()
            case "reset":
                await writer.drain()
                # Give the client the time to read what came before; a reset throws unread bytes away.
                await asyncio.sleep(0.05)
                reset(writer)
            case "garbage":
                writer.write(b"zz\r\nnonsense\r\n")
                await writer.drain()
                await asyncio.Event().wait()
        await writer.drain()
        return self.end == "done"


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes as they are; then the connection closes, or stays open."""

    data: bytes
    keep: bool = False

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Send them."""
        writer.write(self.data)
        await writer.drain()
        return self.keep


class Hang:
    """No answer at all."""

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Wait for ever."""
        await asyncio.Event().wait()
        return False


class Reset:
    """The connection is reset before a byte is sent."""

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Reset."""
        reset(writer)
        return False


@dataclass(frozen=True, slots=True)
class CloseAfter:
    """A good answer, after which the idle connection is closed without a word, as load balancers do."""

    answer: Answer

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Answer, and close."""
        await self.answer.send(request, writer)
        return False


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection (TCP RST) instead of closing it."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class FakeProvider:
    """The server; an async context manager."""

    def __init__(self) -> None:
        self.requests: list[Recorded] = []
        self.base_url = ""
        self._scripts: dict[str, list[Reply]] = {}
        self._changed = asyncio.Condition()
        self._active: dict[str, int] = defaultdict(int)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def script(self, model: str, *replies: Reply) -> None:
        """Say what a model does, request by request; the last reply repeats."""
        self._scripts[model] = list(replies)

    def asked(self, model: str) -> list[Recorded]:
        """Return the requests that a model got."""
        return [request for request in self.requests if request.model == model]

    def active(self) -> int:
        """Return how many requests are under way."""
        return sum(self._active.values())

    async def started(self, model: str, count: int = 1) -> None:
        """Wait until a model was asked so often."""
        await self._until(lambda: len(self.asked(model)) >= count)

    async def disconnected(self, model: str, count: int = 1) -> None:
        """Wait until so many clients left a model before its reply was complete."""
        await self._until(lambda: sum(request.disconnected for request in self.asked(model)) >= count)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        await self._until(lambda: self.active() == 0)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def connection() -> asyncio.StreamReaderProtocol:
            reader = _Reader(loop=loop)
            return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._accept(reader, writer), loop=loop)

        self._server = await loop.create_server(connection, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS_TO_WAIT), self._changed:
            await self._changed.wait_for(reached)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _accept(self, reader: "_Reader", writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            async for request in _requests(reader, writer):
                if not await self._serve(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client has gone, or the test is over; either way there is nobody left to tell.
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve(self, request: Recorded, reader: "_Reader", writer: asyncio.StreamWriter) -> bool:
        """Send the scripted reply while watching for the client's departure; return whether the connection may be used again."""
        replies = self._scripts.setdefault(request.model, [Answer(text=f"an answer from {request.model}")])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        self.requests.append(request)
        self._active[request.model] += 1
        await self._tell()
        sending = asyncio.ensure_future(reply.send(request, writer))
        leaving = asyncio.ensure_future(reader.gone.wait())
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() or sending.exception() is not None:
                request.disconnected = True
                return False
            return sending.result()
        finally:
            for one in (sending, leaving):
                one.cancel()
            await asyncio.wait({sending, leaving})
            request.ended = time.monotonic()
            self._active[request.model] -= 1
            await self._tell()


class _Reader(asyncio.StreamReader):
    """Tells of the client's departure without reading, so that nothing of its next request is swallowed."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        """Note that the client closed."""
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        """Note that the connection broke."""
        super().set_exception(exc)
        self.gone.set()


async def _requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[Recorded]:
    """Yield the requests of one connection."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in head.split("\r\n")[1:] if ": " in line)
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
        yield Recorded(model=body["model"], body=body, headers=headers, port=writer.get_extra_info("peername")[1], started=time.monotonic())


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // max(1, pieces)))
    return [text[start : start + size] for start in range(0, len(text), size)]
