"""Which state of the code made a record."""

import subprocess
from functools import cache

from replicate.paths import root


@cache
def commit() -> str | None:
    """The checkout's commit, with ``+`` if files differ from it; None outside version control. Asked for once a process."""
    git = ["git", "-C", str(root())]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
