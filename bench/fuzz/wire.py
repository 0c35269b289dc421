"""What no gRPC client would send: HTTP/2 frames written by hand, and bytes that are none.

Nothing of what comes back is decoded. It is read to its end and searched for canaries; the gateway must close or answer in time, and live.
"""

import asyncio
import random
import struct
import time
from collections.abc import Callable, Sequence

from bench.fuzz.calls import MARGIN_SECONDS, Ended
from bench.fuzz.cases import GENERATE, Case

QUIET_SECONDS = 0.3
"""A connection on which so long nothing came is left."""
LONGEST_SECONDS = 5.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_END_STREAM, _END_HEADERS = 1, 4
_MOST_READ = 1 << 20

Header = tuple[bytes, bytes]


async def sent(address: str, case: Case, chance: random.Random, word: Callable[[str], str]) -> Ended:
    """Open a connection, send what was made for the case, and read until nothing comes any more."""
    started = time.monotonic()
    host, _, port = address.rpartition(":")
    received = bytearray()
    given_up = True
    try:
        async with asyncio.timeout(LONGEST_SECONDS + MARGIN_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(chance.choice(_CONVERSATIONS)(chance, case, word))
                await writer.drain()
                await _read(reader, received)
            finally:
                writer.close()
        given_up = False
    except OSError:
        # Reset by the other end, which is an answer too. A TimeoutError is an OSError as well.
        given_up = time.monotonic() - started > LONGEST_SECONDS
    return Ended(code="NONE" if given_up else "OK", responses=(bytes(received),), seconds=time.monotonic() - started, given_up=given_up)


async def _read(reader: asyncio.StreamReader, received: bytearray) -> None:
    try:
        while len(received) < _MOST_READ:
            async with asyncio.timeout(QUIET_SECONDS):
                more = await reader.read(65_536)
            if not more:
                return
            received += more
    except TimeoutError:
        return


async def ended_by(address: str, canary: str) -> None:
    """Send what ends gRPC's own server, a path that is not UTF-8; it is not among the conversations, as it takes the calls beside it along."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(_asking(headers(_call(path=b"/\xff" + canary.encode())), message(b"")))
    await writer.drain()
    await _read(reader, bytearray())
    writer.close()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(entries: Sequence[Header]) -> bytes:
    """Return a block of headers in HPACK's simplest form: literals that are not indexed (RFC 7541, section 6.2.2)."""
    return b"".join(b"\0" + _length(name) + name + _length(value) + value for name, value in entries)


def message(data: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """Return a message with gRPC's five bytes before it."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


def _length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),))
    rest, encoded = len(text) - 127, bytearray(b"\x7f")
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*encoded, rest])


def _call(extra: Sequence[Header] = (), path: bytes = GENERATE.encode()) -> list[Header]:
    plain = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"127.0.0.1"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return [*plain, *extra]


def _asking(block: bytes, data: bytes, flags: int = _END_STREAM) -> bytes:
    return _PREFACE + frame(_SETTINGS, 0, 0) + frame(_HEADERS, _END_HEADERS, 1, block) + frame(_DATA, flags, 1, data)


def _noise(chance: random.Random, _: Case, word: Callable[[str], str]) -> bytes:
    return (
        chance.choice((b"", _PREFACE, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01"))
        + word("w").encode()
        + chance.randbytes(chance.choice((0, 9, 1000)))
    )


def _odd_metadata(chance: random.Random, case: Case, word: Callable[[str], str]) -> bytes:
    canary = word("w").encode()
    values = (
        canary + b"\xff\xfe",
        canary + "é\U0001f600".encode(),
        canary + b"\xed\xa0\x80",
        canary + b"\0",
        canary + b"\r\nx: y",
        b" " + canary + b" ",
        canary * 200,
    )
    names = (
        b"x-odd",
        b"X-Upper",
        canary,
        b"",
        b"a b",
        b"traceparent",
        b"tracestate",
        b"authorization",
        b"x-bin",
        b"grpc-timeout",
        b"grpc-encoding",
        b"user-agent",
    )
    entries = [(chance.choice(names), chance.choice(values)) for _ in range(chance.choice((1, 3)))]
    return _asking(headers(_call(entries)), message(case.messages[0]))


def _odd_timeout(chance: random.Random, case: Case, word: Callable[[str], str]) -> bytes:
    timeout = chance.choice((b"", b"1", b"-1S", b"99999999H", b"0n", b"1000000000S", b"1x", b"1S1S", word("w").encode() + b"S"))
    return _asking(headers(_call([(b"grpc-timeout", timeout)])), message(case.messages[0]))


def _odd_message(chance: random.Random, case: Case, word: Callable[[str], str]) -> bytes:
    data = case.messages[0]
    framed = chance.choice(
        (
            *(message(data, length=length) for length in (0, 1, len(data) - 1, len(data) + 1, 2**31, 2**32 - 1)),
            *(message(data, compressed=flag) for flag in (1, 2, 255)),
            *(message(data)[:4], message(data) * 3, b"", b"\0" * 5 * 100, word("w").encode()),
        )
    )
    encoding = chance.choice((b"identity", b"gzip", b"deflate", b"snappy", word("w").encode()))
    return _asking(headers(_call([(b"grpc-encoding", encoding)])), framed)


def _odd_request(chance: random.Random, case: Case, word: Callable[[str], str]) -> bytes:
    entries = _call(path=chance.choice((GENERATE.encode(), b"", b"*", b"/" + word("w").encode(), b"/a", b"http://127.0.0.1/x")))
    kind = chance.randrange(4)
    if kind == 0:
        entries = [entry for entry in entries if entry[0] != chance.choice((b":method", b":path", b"content-type", b"te", b":scheme"))]
    elif kind == 1:
        entries[0] = (b":method", chance.choice((b"GET", b"PUT", b"", word("w").encode())))
    elif kind == 2:
        entries[4] = (b"content-type", chance.choice((b"application/json", b"application/grpc+json", b"text/html", word("w").encode())))
    else:
        chance.shuffle(entries)
    return _asking(headers(entries), message(case.messages[0]))


def _odd_frames(chance: random.Random, case: Case, word: Callable[[str], str]) -> bytes:
    asking = _asking(headers(_call()), message(case.messages[0]), 0)
    kinds = (_DATA, _HEADERS, _PRIORITY, _RST, _SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION, 0x20, 0xFF)
    frames = (
        frame(chance.choice(kinds), chance.getrandbits(8), chance.choice((0, 1, 2, 3, 2**31 - 1)), chance.choice((b"", b"\0" * 4, word("w").encode())))
        for _ in range(8)
    )
    return asking + b"".join(frames)


def _flood(chance: random.Random, _: Case, word: Callable[[str], str]) -> bytes:
    start = _PREFACE + frame(_SETTINGS, 0, 0)
    block = headers(_call([(b"x", word("w").encode())]))
    kind = chance.randrange(3)
    if kind == 0:
        return start + frame(_PING, 0, 0, bytes(8)) * 200 + frame(_SETTINGS, 0, 0) * 200
    if kind == 1:
        # Streams that are begun and taken back at once.
        return start + b"".join(frame(_HEADERS, _END_HEADERS, 2 * one + 1, block) + frame(_RST, 0, 2 * one + 1, bytes(4)) for one in range(100))
    # Headers that never end.
    return start + frame(_HEADERS, 0, 1, block) + frame(_CONTINUATION, 0, 1, headers([(b"y" * 100, b"z" * 1000)])) * 60


_CONVERSATIONS = (_noise, _odd_metadata, _odd_metadata, _odd_metadata, _odd_timeout, _odd_message, _odd_request, _odd_frames, _flood)
