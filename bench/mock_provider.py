"""A provider without delay: answers every chat completion with the same bytes, as cheaply as Python can.

Hand-written over a socket protocol rather than on a web framework, because what it costs is measured together with what it measures.
"""

import asyncio
import json
import sys

_USAGE = {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}


def _chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    return {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "model": "mock", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _stream() -> bytes:
    events = [_chunk({"role": "assistant", "content": "The capital"}), _chunk({"content": " of France"}), _chunk({"content": " is Paris."}), _chunk({}, "stop")]
    events.append({"id": "chatcmpl-mock", "object": "chat.completion.chunk", "model": "mock", "choices": [], "usage": _USAGE})
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _unary() -> bytes:
    message = {"role": "assistant", "content": "The capital of France is Paris."}
    completion = {"id": "chatcmpl-mock", "object": "chat.completion", "model": "mock", "usage": _USAGE}
    body = json.dumps({**completion, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


_STREAM, _UNARY = _stream(), _unary()


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests come one after another."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = next((int(line[15:]) for line in self._buffer[:end].lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            if self._transport is not None:
                self._transport.write(_STREAM if b'"stream":true' in body.replace(b" ", b"") else _UNARY)


async def serve() -> None:
    """Serve on a free port, print it, and end when standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
