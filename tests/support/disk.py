"""A small disk, and filling it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


def fill(file: Path) -> None:
    """Write until there is no room for a byte more."""
    with file.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[bool]:
    """A file system of two megabytes at ``folder``; false where this user may not mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
