"""Write the lock files under requirements/: exact versions with hashes for every Python and platform, and no registry's address.

Run by `make lock`. uv resolves (it alone can lock for all platforms at once); installing needs nothing but pip.
"""

import re
import subprocess  # nosec B404 # runs uv
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "runtime": ["--extra", "local", "--extra", "redis"],
    "dev": ["--extra", "local", "--extra", "redis", "--group", "dev", "--group", "build"],
}
OPTIONS = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
# What pyproject.toml overrides with a marker that never holds comes out of uv all the same, with everything below it.
NEVER = "sys_platform == 'never'"
HEADER = "# Written by `make lock`; install with `pip install --require-hashes --no-deps`.\n"


def main(uv: str) -> None:
    """Resolve each lock file."""
    for name, selection in LOCKS.items():
        path = ROOT / "requirements" / f"{name}.txt"
        command = [uv, "pip", "compile", "pyproject.toml", "--quiet", *OPTIONS, *selection, *sys.argv[2:], "--output-file", str(path)]
        subprocess.run(command, cwd=ROOT, check=True)  # nosec B603 # arguments of our own
        entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip())
        kept = [entry for entry in entries if NEVER not in entry.splitlines()[0] and not entry.startswith("#")]
        path.write_text(HEADER + "\n".join(kept) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
