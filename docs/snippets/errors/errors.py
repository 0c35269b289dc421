# ruff: noqa: T201, D103, D415, I001 - a program of its own, which talks to the terminal
"""Asks for what cannot be had, and prints what the error says: python errors.py ADDRESS [PROFILE [PROMPT]]"""

import sys

import grpc
from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from google.rpc import error_details_pb2, status_pb2


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def explain(error: grpc.RpcError) -> None:
    print("code:", error.code().name)
    print("message:", error.details())
    for detail in status_of(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            print("reason:", info.reason, dict(info.metadata))
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            for violation in error_details_pb2.BadRequest.FromString(detail.value).field_violations:
                print("field:", violation.field, violation.description)
        elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            for violation in error_details_pb2.QuotaFailure.FromString(detail.value).violations:
                print("quota:", violation.subject, violation.description)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            print("retry in:", error_details_pb2.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta())


def main(address: str, profile: str = "", prompt: str = "") -> None:
    with grpc.insecure_channel(address) as channel:
        gateway = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        try:
            print(gateway.Generate(gateway_service_pb2.GenerateRequest(profile=profile, prompt=prompt), timeout=30).answer)
        except grpc.RpcError as error:
            explain(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
