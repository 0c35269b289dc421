"""Send a running gateway whatever strangers may send, and hold every answer, log line and span against the rules.

Exit codes: 0 no rule is broken, 1 some are, 2 it could not be run. The requests are made of the seed alone, their timing is not repeated.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from bench.fuzz.processes import CannotStart, Died
from bench.fuzz.run import AT_ONCE, Summary, run
from bench.fuzz.setting import Doors

SHOWN = 6
"""Findings of each rule that are shown."""


def main() -> int:
    """Run it and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--seed", type=int, default=1, help="what they are made of (default: 1)")
    parser.add_argument("--only", type=int, nargs="+", default=[], metavar="NUMBER", help="send only the requests of these numbers, to repeat a finding")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"calls at once (default: {AT_ONCE})")
    parser.add_argument("--full-share", type=float, default=0.06, help="share that goes through all four services (default: 0.06)")
    parser.add_argument("--settings", type=Path, help="YAML put over the services' configuration: tenants with keys, a cache, replays, …")
    parser.add_argument("--keys", type=Path, help="file with the keys that the gateway takes, one a line; some requests then come with bad ones, or none")
    parser.add_argument("--repeats", type=float, default=0.05, help="share of the requests that bear an earlier one's request_id (default: 0.05)")
    options = parser.parse_args()
    doors = Doors(settings=_settings(options.settings), keys=_keys(options.keys), repeats=options.repeats)
    print(
        f"seed {options.seed}; to repeat a finding: python -m bench.fuzz --seed {options.seed} --only NUMBER (with the other options as they are)", flush=True
    )
    started = time.monotonic()
    try:
        summary = asyncio.run(
            run(
                requests=options.requests,
                seed=options.seed,
                at_once=options.at_once,
                full_share=options.full_share,
                doors=doors,
                only=options.only,
                tell=lambda text: print(f"{time.monotonic() - started:7.0f} s  {text}", file=sys.stderr, flush=True),
            )
        )
    except (CannotStart, Died) as error:
        print(f"could not be run to its end: {error}", file=sys.stderr)
        return 2
    _print(summary, time.monotonic() - started)
    return 1 if summary.findings else 0


def _settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    tree: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tree


def _keys(path: Path | None) -> tuple[str, ...]:
    return () if path is None else tuple(path.read_text(encoding="utf-8").split())


def _print(summary: Summary, seconds: float) -> None:
    full = summary.requests.pop("(full)", 0)
    made = sum(summary.requests.values())
    _line("requests", made, summary.requests)
    print(f"{'full':<10} {full}")
    _line("statuses", sum(summary.codes.values()), summary.codes)
    _line("log lines", sum(summary.lines.values()), summary.lines)
    print(f"{'exports':<10} {summary.received['exports']}  bytes {summary.received['bytes']}")
    for name, grown in summary.growths.items():
        print(f"{'memory':<10} {name} {grown.first_mb:.1f} -> {grown.last_mb:.1f} MB; {grown.per_100k_mb:+.2f} MB in 100,000 requests")
    print(f"{'checks':<10} {summary.checks}")
    print(f"{'longest':<10} {summary.longest_seconds:.1f} s")
    by_rule: dict[str, list[str]] = {}
    for finding in summary.findings:
        by_rule.setdefault(finding.rule, []).append(f"{'' if finding.number < 0 else f'#{finding.number} '}{finding.text}")
    print(f"{'findings':<10} {len(summary.findings)}" + "".join(f"  {rule} {len(texts)}" for rule, texts in sorted(by_rule.items())))
    for rule, texts in sorted(by_rule.items()):
        for text in texts[:SHOWN]:
            print(f"  {rule}: {text}")
    print(f"{'seconds':<10} {seconds:.1f}  {made / seconds:.0f} requests/s")


def _line(title: str, total: int, parts: Any) -> None:
    print(f"{title:<10} {total}" + "".join(f"  {name} {count}" for name, count in sorted(parts.items(), key=lambda part: -part[1])))


if __name__ == "__main__":
    sys.exit(main())
