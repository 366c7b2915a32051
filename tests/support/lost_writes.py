"""Every state of a disk that a power cut may leave, recorded while something is written to it.

POSIX promises the bytes of a file once it was fsynced, and a name once its folder was. Of the rest any
part may be there: a file may be empty or half, a rename may have come before the bytes, one folder may
know of what another does not. From the acts of one undisturbed run the states are made that lack
something: all that was not flushed; each file or folder alone, in each of its stages since it was
flushed; all but it; and each file cut in half.
"""

import os
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Names = Mapping[str, int]
"""The names in a folder, with the number of what each is."""

Tree = dict[str, bytes | str | None]
"""Paths below the root: bytes of a file, the aim of a link, None for a folder."""

_Content = bytes | str | Names


@dataclass
class _Item:
    """A file, link or folder: every content since it was flushed, that one first."""

    stages: list[_Content]
    handle: int | None = None
    """Held open, so that its number is not given to another."""


@dataclass
class Recorder:
    """Follows what is below ``root``; ``states`` are the different ones so far, with where each arose.

    ``cache``: folders of which nothing is promised. What is lost of them is looked at whole, and not
    file by file, unless ``thorough``.
    """

    root: Path
    cache: frozenset[str] = frozenset()
    thorough: bool = False
    states: dict[frozenset[tuple[str, bytes | str | None]], str] = field(default_factory=dict)
    _items: dict[int, _Item] = field(default_factory=dict)
    _cached: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._look(self.root)
        for item in self._items.values():
            item.stages = item.stages[-1:]

    def before(self, act: str, path: str) -> None:
        """Note every state that the disk may be in before this act."""
        self._look(self.root)
        for tree in self._trees():
            self.states.setdefault(frozenset(tree.items()), f"{act} {path}")

    def flushed(self, path: str) -> None:
        """``path`` is on the disk for good, as it is."""
        flushed = Path(path)
        if flushed == self.root or self.root in flushed.parents:
            self._items[flushed.stat().st_ino].stages = [self._content(flushed)]

    def write(self, file: Path) -> None:
        """Leave the states in ``file`` for :func:`read`."""
        file.write_bytes(pickle.dumps([(dict(tree), act) for tree, act in self.states.items()]))

    def _look(self, path: Path) -> None:
        number, content = os.lstat(path).st_ino, self._content(path)
        item = self._items.get(number)
        if item is None:
            handle = None if path.is_symlink() else os.open(path, os.O_RDONLY)
            empty: _Content = {} if path.is_dir() and not path.is_symlink() else b""
            item = self._items[number] = _Item([content if isinstance(content, str) else empty], handle)
            if any(part in self.cache for part in path.relative_to(self.root).parts):
                self._cached.add(number)
        if item.stages[-1] != content:
            item.stages.append(content)
        if isinstance(content, Mapping):
            for name in content:
                self._look(path / name)

    def _content(self, path: Path) -> _Content:
        if path.is_symlink():
            return str(path.readlink())
        if path.is_dir():
            return {entry.name: entry.inode() for entry in os.scandir(path)}
        return path.read_bytes()

    def _trees(self) -> Iterator[Tree]:
        now = {number: item.stages[-1] for number, item in self._items.items()}
        kept = {number: item.stages[0] for number, item in self._items.items()}
        yield self._tree(now)
        yield self._tree(kept)
        yield self._tree(now | {number: kept[number] for number in self._cached})
        yield self._tree(kept | {number: now[number] for number in self._cached})
        for number, item in self._items.items():
            if len(item.stages) > 1 and (self.thorough or number not in self._cached):
                for stage in (*item.stages, *_torn(item.stages[-1])):
                    yield self._tree(now | {number: stage})
                    yield self._tree(kept | {number: stage})

    def _tree(self, content: Mapping[int, _Content]) -> Tree:
        tree: Tree = {}
        self._grow(tree, "", self.root.stat().st_ino, content)
        return tree

    def _grow(self, tree: Tree, place: str, folder: int, content: Mapping[int, _Content]) -> None:
        names = content[folder]
        assert isinstance(names, Mapping)
        for name, number in names.items():
            inside = content.get(number, b"")
            path = f"{place}{name}"
            tree[path] = None if isinstance(inside, Mapping) else inside
            if isinstance(inside, Mapping):
                self._grow(tree, f"{path}/", number, content)


def _torn(content: _Content) -> list[bytes]:
    return [content[: len(content) // 2]] if isinstance(content, bytes) else []


def read(file: Path) -> list[tuple[Tree, str]]:
    """The states that a recorder left, each with the act before which it arose first."""
    states: list[tuple[Tree, str]] = pickle.loads(file.read_bytes())
    return states


def lay_out(tree: Tree, root: Path) -> None:
    """Make ``root`` hold ``tree``."""
    root.mkdir()
    for name, content in sorted(tree.items()):
        path = root / name
        match content:
            case None:
                path.mkdir()
            case bytes():
                path.write_bytes(content)
            case aim:
                path.symlink_to(aim)
