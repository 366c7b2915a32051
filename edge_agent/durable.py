"""Files that survive a power cut: what was written is there whole, or what was there before.

Every durable act of the agent's updates goes through here, so that there is one place to look at,
and one to cut the power at in a test.
"""

import os
import shutil
from pathlib import Path


def write(file: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace ``file`` by ``content``: temp, fsync, rename, fsync of the folder."""
    draft = file.with_name(file.name + ".draft")
    fill(draft, content, mode)
    rename(draft, file)


def fill(file: Path, content: bytes, mode: int = 0o666) -> None:
    """Write ``content`` into ``file`` and flush it; its name is only durable once its folder is.

    A file that is new has ``mode``, less what the umask takes. Nothing is written through a link: a stick
    could hold one under the name of a draft.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(file, flags, mode), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def flush(file: Path) -> None:
    """Flush what was written to ``file`` before, or a folder's list of names."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give ``source``, which is flushed, the name ``target`` in the same folder, for good."""
    source.replace(target)
    flush(target.parent)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, if it is not there, so that its names are durable."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there. What is left after a cut is removed again later."""
    if path.is_dir() and not path.is_symlink():
        # Renamed first: a folder that is half gone must not be taken for a whole one.
        doomed = path.with_name(f".doomed-{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
