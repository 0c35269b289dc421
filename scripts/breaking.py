"""Check with buf that the protos do not break what main promises; what is compared with is printed."""

import shutil
import subprocess  # nosec B404 # runs git, tar and buf
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# main as the remote has it; in a clone without a remote, main itself; in a shallow or detached one, the commit checked out.
BASES = ("refs/remotes/origin/main", "refs/heads/main", "HEAD")


def main() -> int:
    """Compare the working folder."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        print("breaking: no git checkout, or no git, so nothing to compare with")
        return 0
    found = _git("rev-parse", "--git-dir")
    if found.returncode != 0:
        print(f"breaking: {found.stderr.decode().strip()}")
        return 1
    base = next((revision for revision in BASES if _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").returncode == 0), None)
    if base is None:
        print("breaking: no commit yet, so nothing to compare with")
        return 0
    if _git("cat-file", "-e", f"{base}:./buf.yaml").returncode != 0:
        print(f"breaking: {base} has no protos yet")
        return 0
    print(f"breaking: the working folder against {base}, {_git('log', '-1', '--format=%h of %cs', base).stdout.decode().strip()}", flush=True)
    # buf reads branches and tags of a clone by their names, so the other side is exported and read as a folder.
    folder = ROOT / ".cache" / "breaking"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = _git("archive", base, "protos", "buf.yaml")
    archive.check_returncode()
    unpack = ["tar", "-x", "-C", str(folder)]
    subprocess.run(unpack, input=archive.stdout, check=True)  # nosec B603 # arguments of our own
    compare = [str(Path(sys.executable).parent / "buf"), "breaking", "--against", str(folder)]
    return subprocess.run(compare, cwd=ROOT, check=False).returncode  # nosec B603 # arguments of our own


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # As found on the path, with arguments of our own.
    return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True)  # noqa: S607 # nosec B603 B607 # see above


if __name__ == "__main__":
    sys.exit(main())
