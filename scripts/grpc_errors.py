"""The errors that gRPC itself makes, at either end of a call: no ErrorInfo of ours comes with them, and only code and text tell them apart.

They are written down for docs/errors.md, and so that a test can hold the words against what a real client sees; nothing here decides anything.
"""

from dataclasses import dataclass

import grpc

Code = grpc.StatusCode


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcError:
    """One way in which a call fails before, or beside, any service of ours."""

    code: grpc.StatusCode
    text: str
    """What its text begins with, or holds, as gRPC's C core has it (Python, C++, Ruby, PHP); other implementations say it otherwise."""
    situation: str
    advice: str
    repeat: str
    """Whether the same request may be sent again."""


GRPC_ERRORS: tuple[GrpcError, ...] = (
    GrpcError(
        code=Code.UNAVAILABLE,
        text="failed to connect to all addresses",
        situation="Nobody listens at the address, nothing leads there, or one end speaks TLS and the other does not, or does not trust its certificate.",
        advice="Look at address, port and TLS settings; the text names the cause.",
        repeat="yes, with a backoff: nothing was begun",
    ),
    GrpcError(
        code=Code.UNAVAILABLE,
        text="Cancelling all calls",
        situation='The server was stopped, or the connection broke, while the call was under way; "Socket closed" is another of its texts.',
        advice="Ask again, with the same request_id.",
        repeat="yes; models may have been called already",
    ),
    GrpcError(
        code=Code.DEADLINE_EXCEEDED,
        text="Deadline Exceeded",
        situation="The client's own deadline passed before anything arrived, the server's DEADLINE_SPENT included, which was still on its way.",
        advice="Allow more time. The server has stopped the run by itself.",
        repeat="yes, with a longer deadline; models may have been called already",
    ),
    GrpcError(
        code=Code.CANCELLED,
        text="Locally cancelled by application!",
        situation="The client cancelled the call itself, or left its stream before the end.",
        advice="Nothing. The server stops the run, and with it every call of a model.",
        repeat="yes; models may have been called already",
    ),
    GrpcError(
        code=Code.RESOURCE_EXHAUSTED,
        text="Received message larger than max",
        situation='The request has more than 8 MiB ("SERVER:"), or the response more than the client takes ("CLIENT:", 4 MiB unless set otherwise).',
        advice="Send less, or let the client receive more. Between gateway.most_request_bytes and 8 MiB the error is INVALID_INPUT.",
        repeat="no: it is as large the next time",
    ),
    GrpcError(
        code=Code.RESOURCE_EXHAUSTED,
        text="received metadata size exceeds",
        situation="The call's metadata have more bytes than the server takes, names and overhead of 32 bytes for each entry included; the text may be empty.",
        advice="Send fewer or shorter metadata; often it is a tracestate or a cookie that a proxy adds.",
        repeat="no: they are as large the next time",
    ),
    GrpcError(
        code=Code.UNIMPLEMENTED,
        text="Method not found!",
        situation="What answers at the address does not know the method: it is another server, or one of an older version.",
        advice="Look at the address and at the version. With an ErrorInfo it is UNSUPPORTED: the right server, which does not serve the method.",
        repeat="no",
    ),
)
