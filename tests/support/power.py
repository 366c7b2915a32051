"""A disk whose power is cut: after the cut there is only what was flushed, or, by luck, everything.

POSIX promises no more than this: the bytes of a file are there once it was fsynced, and its name once
its folder was. Real file systems keep more of it most of the time; software must not count on that.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest


class PowerCut(BaseException):
    """The power went. Nothing that foresees errors catches it."""


class Disk:
    """Watches ``root``: counts flushes and renames, and cuts the power before or after one of them."""

    def __init__(self, root: Path) -> None:
        self._root: Final = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self.acts = 0
        self.cut_at = -1
        self.dead = False
        self._settle(root)

    @contextmanager
    def watched(self, patch: pytest.MonkeyPatch, cut_at: int = -1) -> Iterator[None]:
        """From here on, cut the power at act number ``cut_at``: even before it, odd after it."""
        self.acts, self.cut_at, self.dead = 0, cut_at, False
        replace = os.replace

        def flushed(descriptor: int) -> None:
            # Nothing is flushed for real: what counts is what is remembered here.
            self._act()
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if self._root == path or self._root in path.parents:
                self._remember(path)
            self._act()

        def renamed(source: Path, target: Path) -> None:
            self._act()
            replace(source, target)
            self._act()

        with patch.context() as patches:
            patches.setattr(os, "fsync", flushed)
            patches.setattr(os, "replace", renamed)
            yield

    def lose(self) -> None:
        """Take away everything that was not flushed; what is left is on the disk for good."""
        kept = self._tree(self._root.stat().st_ino, is_folder=True)
        shutil.rmtree(self._root)
        self._write(self._root, kept)
        self._settle(self._root)

    def keep(self) -> None:
        """By luck everything was written; it is on the disk for good."""
        self._settle(self._root)

    def _act(self) -> None:
        if self.dead or self.acts == self.cut_at:
            self.dead = True
            raise PowerCut
        self.acts += 1

    def _remember(self, path: Path) -> None:
        number = path.stat().st_ino
        if path.is_dir():
            self._names[number] = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(path)}
        else:
            self._contents[number] = path.read_bytes()

    def _settle(self, path: Path) -> None:
        self._remember(path)
        for child in path.iterdir() if path.is_dir() else ():
            if not child.is_symlink():
                self._settle(child)

    def _tree(self, number: int, *, is_folder: bool) -> "dict[str, object] | bytes":
        if not is_folder:
            return self._contents.get(number, b"")
        names = self._names.get(number, {})
        return {name: self._tree(child, is_folder=folder) for name, (child, folder) in names.items()}

    def _write(self, path: Path, tree: "dict[str, object] | bytes | object") -> None:
        if isinstance(tree, dict):
            path.mkdir()
            for name, child in tree.items():
                self._write(path / name, child)
        elif isinstance(tree, bytes):
            path.write_bytes(tree)
