"""Drive real limiters with many clients, crashes, repeats and kills, and check the whole history against the limits.

Exit codes: 0 nothing is violated, 1 something is, 2 it could not be run.
"""

import argparse
import asyncio
import sys
import time

from bench.history.replicas import CannotStart
from bench.history.run import CannotRun, Summary, run
from tests.support.redis_server import RedisServerFailed, RedisServerMissing

SHOWN = 3
"""Violations of each invariant that are shown."""


def main() -> int:
    """Run it and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--ops", type=int, default=1500, help="operations of all clients together (default: 1500)")
    parser.add_argument("--replicas", type=int, default=2, help="limiter processes (default: 2)")
    parser.add_argument("--clients", type=int, default=32, help="clients at once (default: 32)")
    parser.add_argument("--seed", type=int, default=1, help="where the clients' choices begin (default: 1); their timing is not repeated")
    parser.add_argument("--store", choices=("redis", "memory"), default="redis", help="memory: one limiter, which is not killed, and replies alone are checked")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        summary = asyncio.run(run(operations=options.ops, replicas=options.replicas, clients=options.clients, seed=options.seed, store=options.store))
    except (CannotRun, CannotStart, RedisServerMissing, RedisServerFailed, TimeoutError) as error:
        print(f"could not run: {error}", file=sys.stderr)
        return 2
    _print(summary, time.monotonic() - started)
    return 1 if summary.violations else 0


def _print(summary: Summary, seconds: float) -> None:
    for name, value in summary.counts.items():
        print(f"{name:<12} {value}")
    print(f"{'denials':<12} {sum(summary.denials.values())}" + "".join(f"  {reason} {count}" for reason, count in sorted(summary.denials.items())))
    by_invariant: dict[str, list[str]] = {}
    for violation in summary.violations:
        by_invariant.setdefault(violation.invariant, []).append(violation.text)
    print(f"{'violations':<12} {len(summary.violations)}" + "".join(f"  {name} {len(texts)}" for name, texts in sorted(by_invariant.items())))
    for name, texts in sorted(by_invariant.items()):
        for text in texts[:SHOWN]:
            print(f"  {name}: {text}")
    print(f"{'seconds':<12} {seconds:.1f}")


if __name__ == "__main__":
    sys.exit(main())
