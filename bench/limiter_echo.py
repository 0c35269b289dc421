"""A bare grpc.aio server that gives back the bytes it was sent: what no RPC of this language on this machine can be faster than."""

import asyncio
import sys
from typing import Any

import grpc

METHOD = "/bench.Echo/Say"


async def say(request: bytes, _: grpc.aio.ServicerContext[Any, Any]) -> bytes:
    """Give back what was sent."""
    return request


async def serve() -> None:
    """Serve on a free port, print it, and end when standard input is closed."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Say": grpc.unary_unary_rpc_method_handler(say)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())
