"""What git says."""

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command; None where it fails, or git, a repository or a first commit is missing."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip("\n")
