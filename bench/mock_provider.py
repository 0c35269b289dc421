"""A provider without delay: answers every chat completion with the same bytes, as cheaply as Python can.

The model `TAILED` takes its time: lognormal latencies, of which a few are stalls of many times the median, as hosted models have them.

Hand-written over a socket protocol rather than on a web framework, because what it costs is measured together with what it measures.
"""

import asyncio
import json
import random
import sys

TAILED = "tailed"
MEDIAN_SECONDS = 0.1
SIGMA = 0.5
"""Of the logarithm of the latency: one call in twenty takes more than 2.3 times the median."""
STALLED_SHARE = 0.03
STALL_SECONDS = 20 * MEDIAN_SECONDS

_NAMES_TAILED = f'"model":"{TAILED}"'.encode()
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

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers
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
            compact = body.replace(b" ", b"")
            reply = _STREAM if b'"stream":true' in compact else _UNARY
            if _NAMES_TAILED in compact:
                asyncio.get_running_loop().call_later(self._latency(), self._write, reply)
            else:
                self._write(reply)

    def _latency(self) -> float:
        if self._numbers.random() < STALLED_SHARE:
            return STALL_SECONDS
        return MEDIAN_SECONDS * self._numbers.lognormvariate(0.0, SIGMA)

    def _write(self, reply: bytes) -> None:
        # A caller that lost its patience has gone by now.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply)


async def serve() -> None:
    """Serve on a free port, print it, and end when standard input is closed."""
    loop = asyncio.get_running_loop()
    numbers = random.Random(1)  # nosec B311 # repeatable, not secret
    server = await loop.create_server(lambda: _Connection(numbers), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
