"""The requests of a run: each is made of the seed and its number alone, so that it can be made again."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import grpc
from google.protobuf.message import EncodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from bench.fuzz import hostile, messages, metadata, mutations
from bench.fuzz.canaries import Canaries
from bench.fuzz.metadata import Metadatum
from bench.fuzz.setting import Doors
from ensemble.v1 import gateway_service_pb2

GATEWAY = "/ensemble.v1.GatewayService/"
GENERATE, STREAM = GATEWAY + "Generate", GATEWAY + "StreamGenerate"
LISTS = (GATEWAY + "ListProfiles", GATEWAY + "ListModels")
HEALTH = "/grpc.health.v1.Health/"
CHECK, WATCH = HEALTH + "Check", HEALTH + "Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
PATIENT_SECONDS = 30.0
"""Far longer than any request takes that says nothing else: one that is cut off after it has hung."""
SILENT_SECONDS = 0.2
"""The deadline of a call that sends nothing."""
_LONG = (1e6, 1e8)
_TIMEOUTS = (0.0, 1e-9, 1e-6, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1)
_UNKNOWN = (
    GATEWAY + "generate",
    GATEWAY + "Nothing",
    "/ensemble.v1.OrchestratorService/Run",
    "/ensemble.v1.LimiterService/SetOverride",
    "/ensemble.v2.GatewayService/Generate",
    "/ensemble.",
    "/",
    "//",
    "/a/b/c",
    "/%00/%0a",
    "/grpc.health.v1.Health/Nothing",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
)
_REPEATED_WITHIN = 64
"""So many requests, one after another, share an id where they share one."""
_SHARED_NUMBERS = 0x70000000
"""Where the numbers begin that canaries of shared content bear."""
_SHARES: Mapping[str, int] = {
    "random": 5,
    "mutated": 24,
    "grammar": 34,
    "unknown": 3,
    "metadata": 10,
    "rpcs": 7,
    "unknown method": 2,
    "hurried": 5,
    "leaving": 5,
    "large": 1,
    "numbers": 1,
    "good": 2,
    "wire": 1,
}
"""What kinds of requests there are, in parts of a hundred."""
_DOOR_SHARES = (0.08, 0.07)
"""Of the requests, where the gateway wants keys: those with a bad key, those with none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """When a caller goes away without waiting for the end."""

    seconds: float | None = None
    responses: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request, as its bytes are sent."""

    number: int
    family: str
    method: str = GENERATE
    messages: tuple[bytes, ...] = (b"",)
    metadata: tuple[Metadatum, ...] = ()
    timeout: float | None = PATIENT_SECONDS
    leave: Leave | None = None
    compression: grpc.Compression | None = None
    full: bool = False
    """Whether it goes through all four services."""
    door: str = ""
    """Where the gateway wants keys: "good", "bad" or "missing"; "either" where nobody can say."""
    answered: bool = False
    """Whether nothing but an answer is right."""
    owners: frozenset[int] = frozenset()
    """Whose canaries may be in the response beside its own: those of requests that it repeats."""

    @property
    def ours(self) -> bool:
        """Whether a service of ours answers it, rather than gRPC."""
        return self.method in {GENERATE, STREAM, *LISTS}

    @property
    def exact(self) -> bool:
        """Whether each canary is in the place that its code says: bytes that were changed may have moved it."""
        return self.family not in {"mutated", "random", "wire"}


class Cases:
    """All requests of one seed."""

    def __init__(self, seed: int, *, doors: Doors | None = None, full_share: float = 0.06) -> None:
        self.seed = seed
        self.canaries = Canaries(seed)
        self._doors = doors or Doors()
        self._full_share = full_share
        self._makers: Mapping[str, Callable[[random.Random, int], Case]] = {
            "random": self._random,
            "mutated": self._mutated,
            "grammar": self._grammar,
            "unknown": self._unknown,
            "metadata": self._metadata,
            "rpcs": self._rpc,
            "unknown method": self._unknown_method,
            "hurried": self._hurried,
            "leaving": self._leaving,
            "large": self._large,
            "numbers": self._numbers,
            "good": self._good,
            "wire": self._wire,
        }

    def case(self, number: int) -> Case:
        """Return the request of this number."""
        chance = self._repeatable(str(number))
        (family,) = chance.choices(tuple(_SHARES), tuple(_SHARES.values()))
        made = self._makers[family](chance, number)
        if made.ours and made.method not in LISTS and chance.random() < self._full_share:
            made = replace(made, full=True)
        # Good requests have their key; frames written by hand bring none, and how their calls ended is not decoded.
        return self._at_the_door(chance, made) if self._doors.keys and made.ours and made.family not in {"good", "wire"} else made

    def good(self, number: int, *, full: bool) -> Case:
        """Return a request to which there is nothing to object."""
        small = messages.right(self._repeatable(f"good/{number}"), partial(self.canaries.word, number), small=True)
        case = Case(number=number, family="good", messages=(small.SerializeToString(),), full=full, answered=True)
        return replace(case, door="good", metadata=(("authorization", f"Bearer {self._doors.keys[0]}"),)) if self._doors.keys else case

    def _repeatable(self, what: str) -> random.Random:
        return random.Random(f"{self.seed}/{what}")  # nosec B311 # repeatable, not secret

    def _at_the_door(self, chance: random.Random, case: Case) -> Case:
        if any(key.lower() == "authorization" for key, _ in case.metadata):
            return replace(case, door="either")
        bad, missing = _DOOR_SHARES
        draw = chance.random()
        if case.answered or draw > bad + missing:
            return replace(case, door="good", metadata=(*case.metadata, ("authorization", f"Bearer {chance.choice(self._doors.keys)}")))
        if draw > bad:
            return replace(case, door="missing")
        return replace(case, door="bad", metadata=(*case.metadata, ("authorization", f"Bearer {self.canaries.word(case.number, 'c')}")))

    def _request(self, chance: random.Random, number: int, *, bad: int = 0) -> tuple[gateway_service_pb2.GenerateRequest, frozenset[int]]:
        if chance.random() >= self._doors.repeats:
            request = messages.right(chance, partial(self.canaries.word, number))
            messages.spoil(chance, partial(self.canaries.word, number), request, bad)
            return request, frozenset()
        group = _SHARED_NUMBERS + number // _REPEATED_WITHIN
        request = messages.right(self._repeatable(f"repeated/{group}"), partial(self.canaries.word, group))
        if chance.random() < 0.5:
            request.system = f"Otherwise {self.canaries.word(number, 's')}"
        request.request_id = self.canaries.word(group, "q")
        return request, frozenset({group})

    def _generated(self, chance: random.Random, number: int, family: str, *, bad: int = 0) -> Case:
        request, owners = self._request(chance, number, bad=bad)
        method = chance.choice((GENERATE, GENERATE, STREAM))
        try:
            serialized = request.SerializeToString()
        except EncodeError:
            # Nested deeper than the encoder goes; `mutations.nested` is what goes deeper.
            serialized = b""
        data = hostile.with_invalid_utf8(serialized)
        return Case(number=number, family=family, method=method, messages=(_streamed(method, data),), owners=owners)

    def _random(self, chance: random.Random, number: int) -> Case:
        method = chance.choice((GENERATE, STREAM, *LISTS))
        return Case(number=number, family="random", method=method, messages=(chance.randbytes(chance.choice((0, 1, 2, 3, 8, 20, 100, 1000, 20_000))),))

    def _mutated(self, chance: random.Random, number: int) -> Case:
        case = self._generated(chance, number, "mutated")
        other, others = self._request(chance, number)
        data = mutations.mutated(chance, case.messages[0], other.SerializeToString())
        return replace(case, messages=(data,), owners=case.owners | others)

    def _grammar(self, chance: random.Random, number: int) -> Case:
        return self._generated(chance, number, "grammar", bad=chance.choice((0, 1, 1, 1, 2, 3)))

    def _unknown(self, chance: random.Random, number: int) -> Case:
        word = partial(self.canaries.word, number)
        request = messages.right(chance, word)
        messages.unknown(chance, word, request)
        method = chance.choice((GENERATE, STREAM))
        return Case(number=number, family="unknown", method=method, messages=(_streamed(method, request.SerializeToString()),))

    def _metadata(self, chance: random.Random, number: int) -> Case:
        entries = metadata.hostile(chance, partial(self.canaries.word, number))
        case = self._generated(chance, number, "metadata") if chance.random() < 0.7 else self._rpc(chance, number)
        return replace(case, family="metadata", metadata=entries)

    def _rpc(self, chance: random.Random, number: int) -> Case:
        word = self.canaries.word(number, "v")
        method = chance.choice((*LISTS, CHECK, WATCH, HEALTH + "List", REFLECTION, REFLECTION))
        name = chance.choice(("", "ensemble.v1.GatewayService", word, hostile.text(chance)))[:70_000]
        watching = Leave(seconds=chance.random() * 0.02) if method == WATCH else None
        if chance.random() < 0.25:
            data: tuple[bytes, ...] = (mutations.mutated(chance, name.encode(errors="replace"), chance.randbytes(20)),)
        elif method == REFLECTION:
            ask = reflection_pb2.ServerReflectionRequest
            kinds = [
                ask(file_by_filename=name),
                ask(file_containing_symbol=name),
                ask(all_extension_numbers_of_type=name),
                ask(list_services=name),
                ask(host=word),
            ]
            kinds.append(ask(file_containing_extension={"containing_type": name, "extension_number": chance.choice((0, -1, 2**31 - 1))}))
            data = tuple(hostile.with_invalid_utf8(one.SerializeToString()) for one in chance.sample(kinds, chance.randrange(len(kinds))))
        elif method in {CHECK, WATCH}:
            data = (hostile.with_invalid_utf8(health_pb2.HealthCheckRequest(service=name).SerializeToString()),)
        else:
            data = (chance.choice((b"", mutations.delimited(1000, word.encode()))),)
        return Case(number=number, family="rpcs", method=method, messages=data, leave=watching)

    def _unknown_method(self, chance: random.Random, number: int) -> Case:
        path = chance.choice((*_UNKNOWN, f"/{self.canaries.word(number, 'v')}/x", f"/ensemble.{self.canaries.word(number, 'v')}/x"))
        return Case(number=number, family="unknown method", method=path, messages=(chance.randbytes(10),))

    def _hurried(self, chance: random.Random, number: int) -> Case:
        return replace(self._generated(chance, number, "hurried"), timeout=chance.choice((*_TIMEOUTS, *_TIMEOUTS, *_LONG, None)))

    def _leaving(self, chance: random.Random, number: int) -> Case:
        leave = Leave(seconds=chance.random() ** 3 * 0.05) if chance.random() < 0.6 else Leave(responses=chance.randrange(3))
        return replace(self._generated(chance, number, "leaving"), leave=leave)

    def _large(self, chance: random.Random, number: int) -> Case:
        case = self._generated(chance, number, "large")
        if chance.random() < 0.8:
            data: tuple[bytes, ...] = case.messages
        else:
            # Compressed, a few kilobytes; beyond the limit as soon as it is unpacked.
            size = chance.choice((1 << 20, mutations.HUGE_BYTES - 1000, mutations.HUGE_BYTES, 3 * mutations.HUGE_BYTES))
            data = (case.messages[0] + mutations.delimited(1000, bytes(size)),)
        return replace(case, messages=data, compression=chance.choice((grpc.Compression.Gzip, grpc.Compression.Deflate, grpc.Compression.NoCompression)))

    def _numbers(self, chance: random.Random, number: int) -> Case:
        case = self._generated(chance, number, "numbers")
        count = chance.choice((0, 0, 2, 20))
        # gRPC itself never answers a call that brings no message; only its deadline ends it.
        return replace(case, messages=case.messages * count, timeout=case.timeout if count else SILENT_SECONDS)

    def _good(self, chance: random.Random, number: int) -> Case:  # noqa: ARG002 - as the others
        return self.good(number, full=False)

    def _wire(self, chance: random.Random, number: int) -> Case:
        request, owners = self._request(chance, number)
        return Case(number=number, family="wire", messages=(request.SerializeToString(),), owners=owners)


def _streamed(method: str, request: bytes) -> bytes:
    return mutations.delimited(1, request) if method == STREAM else request
