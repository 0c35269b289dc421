"""Bytes gone bad: what is done to a serialized message so that it is none any more, or another one."""

import random
from collections.abc import Callable, Sequence

HUGE_BYTES = (8 << 20) + 1
"""Beyond what the gateway takes."""
_GENERATE_FIELDS = 14
_WIRE_TYPES = 8

Mutation = Callable[[random.Random, bytes, bytes], bytes]
"""From a message and another one that may be spliced in."""


def mutated(chance: random.Random, data: bytes, other: bytes) -> bytes:
    """Return the message after one to four mutations."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_MUTATIONS)(chance, data, other)
    return data


def varint(value: int) -> bytes:
    """Return a number in protobuf's variable-length encoding."""
    encoded = bytearray()
    value &= 2**64 - 1
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def tagged(field: int, wire_type: int, payload: bytes = b"") -> bytes:
    """Return one field: its tag and what follows it."""
    return varint(field << 3 | wire_type) + payload


def delimited(field: int, payload: bytes) -> bytes:
    """Return one field with a length before its bytes."""
    return tagged(field, 2, varint(len(payload)) + payload)


def nested(depth: int, field: int = 7, innermost: bytes = b"") -> bytes:
    """Return options whose parameters hold structures in structures, so many."""
    # Struct.fields = 1; of its entry: key = 1, value = 2; Value.struct_value = 5.
    struct = innermost
    for _ in range(depth):
        struct = delimited(1, delimited(1, b"n") + delimited(2, delimited(5, struct)))
    return delimited(7, delimited(field, struct))


def _flip_bits(chance: random.Random, data: bytes, _: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _time in range(chance.choice((1, 1, 2, 8, 64))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _truncate(chance: random.Random, data: bytes, _: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _cut_out(chance: random.Random, data: bytes, _: bytes) -> bytes:
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.randrange(1, 16) :]


def _splice(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def _insert(chance: random.Random, data: bytes, other: bytes) -> bytes:
    at, start = chance.randrange(len(data) + 1), chance.randrange(len(other) + 1)
    return data[:at] + other[start : start + chance.randrange(1, 64)] + data[at:]


def _repeat(chance: random.Random, data: bytes, other: bytes) -> bytes:
    # Fields may come again: the last one counts, messages are merged, lists grow.
    return (data + other) * chance.choice((1, 2, 50))


def _huge_length(chance: random.Random, data: bytes, _: bytes) -> bytes:
    return data + tagged(chance.randrange(1, _GENERATE_FIELDS + 1), 2, varint(chance.choice((2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1, len(data) + 1)))) + b"x"


def _unknown_fields(chance: random.Random, data: bytes, other: bytes) -> bytes:
    field = chance.choice((15, 16, 1000, 19_000, 2**29 - 1))
    return data + delimited(field, other) * chance.choice((1, 3, 500))


def _bad_tag(chance: random.Random, data: bytes, _: bytes) -> bytes:
    return data + chance.choice((b"\0", varint(2**29 << 3), b"\xff" * 11, tagged(3, 3) * 200, tagged(3, 4), tagged(3, 6), tagged(3, 7)))


def _wrong_wire_type(chance: random.Random, data: bytes, other: bytes) -> bytes:
    wire_type = chance.randrange(_WIRE_TYPES)
    payload = {0: varint(chance.getrandbits(64)), 1: chance.randbytes(8), 2: varint(len(other)) + other, 5: chance.randbytes(4)}.get(wire_type, b"")
    return data + tagged(chance.randrange(1, _GENERATE_FIELDS + 1), wire_type, payload)


def _other_field(chance: random.Random, data: bytes, _: bytes) -> bytes:
    # The first byte is a tag: what stood under one field stands under another.
    return tagged(chance.randrange(1, _GENERATE_FIELDS + 1), 2) + data[1:]


def _deep(chance: random.Random, data: bytes, other: bytes) -> bytes:
    return data + nested(chance.choice((8, 24, 30, 32, 33, 34, 60, 99, 100, 101, 1000)), innermost=chance.choice((b"", other)))


def _groups(chance: random.Random, data: bytes, _: bytes) -> bytes:
    depth = chance.choice((50, 99, 101, 5000))
    return data + tagged(1000, 3) * depth + tagged(1000, 4) * depth


_MUTATIONS: Sequence[Mutation] = (
    _flip_bits,
    _flip_bits,
    _truncate,
    _cut_out,
    _splice,
    _insert,
    _repeat,
    _huge_length,
    _unknown_fields,
    _bad_tag,
    _wrong_wire_type,
    _other_field,
    _deep,
    _groups,
)
