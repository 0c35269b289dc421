"""Check with buf that the protos do not break what main promises; what is compared with is printed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def base() -> str | None:
    """Return the revision to compare with: main as the remote has it, else the local main, else the commit checked out."""
    for revision in ("refs/remotes/origin/main", "refs/heads/main", "HEAD"):
        if _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").returncode == 0:
            return revision
    return None


def main() -> int:
    """Compare."""
    git = shutil.which("git")
    revision = base() if git is not None else None
    if revision is None:
        print("breaking: not a git checkout, nothing to compare with")
        return 0
    if _git("cat-file", "-e", f"{revision}:buf.yaml").returncode != 0:
        print(f"breaking: {revision} has no protos yet")
        return 0
    print(f"breaking: compared with {revision}")
    # buf reads branches and tags of a clone by their names, so the other side is exported and read as a folder.
    folder = ROOT / ".cache" / "breaking"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", revision, "protos", "buf.yaml"], cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S607 - git is found above
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)  # noqa: S607 - as above
    buf = Path(sys.executable).parent / "buf"
    return subprocess.run([str(buf), "breaking", "--against", str(folder)], cwd=ROOT, check=False, env=dict(os.environ)).returncode


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True)  # noqa: S607 - found where it is needed


if __name__ == "__main__":
    sys.exit(main())
