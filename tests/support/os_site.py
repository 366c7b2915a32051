"""One device's agent, as far as it handles images of its operating system, on a board with a real updater."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

from edge_agent.clock import BUILD_MS, Clock
from edge_agent.config import Os
from edge_agent.updates.executor import Executor, Terms
from edge_agent.updates.osimage.installer import OsInstaller
from edge_agent.updates.osimage.rauc import Rauc
from edge_agent.updates.osimage.swupdate import Swupdate
from edge_agent.updates.records import Entry
from edge_agent.updates.store import Store
from fleet_protocol.targets import Kind, Target
from fleet_protocol.update_states import UpdateState
from fleet_signing import os_images
from tests.support.boards import RaucBoard, SwupdateBoard
from tests.support.power import PowerCut
from tests.support.updating import calm
from tests.support.waiting import wait_until

TURN_MS = 6000
"""What passes on the device's clock between two turns; longer than the installer waits."""


class _NoShadows:
    """No model runs in shadow."""

    async def keep(self, digests: AbstractSet[str]) -> None:
        """See :class:`edge_agent.updates.running.Beside`."""


class _NoModels:
    """No model runs here."""

    shadows = _NoShadows()
    usual = vitals = staticmethod(lambda _name: calm())


class Site:
    """The agent of ``board``; ``codes`` are the health codes that are raised."""

    def __init__(
        self, board: RaucBoard | SwupdateBoard, settings: Os | None = None, probation_s: float = 60.0
    ) -> None:
        self.board = board
        self.folder = board.folder / "data" / "updates"
        self.settings = settings or Os()
        self.probation_s = probation_s
        self.codes: set[str] = set()
        self.mono_ms = 1_000_000
        self.store = Store(self.folder)
        self.runner = asyncio.Runner()
        self.target: Target | None = None
        board.closing.append(self.close)
        self.start()

    def close(self) -> None:
        """Stop the agent for good."""
        self.stop()
        self.runner.close()

    def start(self) -> None:
        """Start the agent, in the boot that the board is in."""
        self.clock = Clock(
            self.board.boot,
            wall_ns=lambda: (BUILD_MS + self.mono_ms) * 1_000_000,
            mono_ns=lambda: self.mono_ms * 1_000_000,
        )
        self.executor = Executor(self.folder, self.store, self.clock, Terms(0.0, 0), frozenset())
        lock = self.folder / "os.lock"
        if isinstance(self.board, RaucBoard):
            updater: Rauc | Swupdate = Rauc(lock, 60.0)
        else:
            updater = Swupdate(lock, 60.0, self.board.copies)
        self.installer = OsInstaller(
            self.folder, self.store, updater, self.settings, self.clock,
            probation_s=self.probation_s, raised=lambda: self.codes,
        )  # fmt: skip
        self.executor.installers = {Kind.OS: self.installer}
        self.executor.resume()

    def restart(self, *, vain: bool = False) -> None:
        """Restart the board, and the agent with it."""
        self.stop()
        self.board.restart(vain=vain)
        self.start()

    def cut(self) -> None:
        """The power goes and comes back."""
        with contextlib.suppress(PowerCut):
            self.stop()
        self.board.restart()
        self.start()

    def stop(self) -> None:
        """Stop the agent, as the service manager does."""
        self.runner.run(self.installer.close())

    def accept(self, file: Path, release: int = 2) -> Target:
        """Verified and downloaded: the image in ``file``."""
        image = os_images.of_file(file, "gateway_os", f"1.{release}", release, ())
        place = self.store.downloaded(image.target.sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
        assert hashlib.sha256(place.read_bytes()).hexdigest() == image.target.sha256
        self.target = image.target
        self.executor.accept(image.target)
        return image.target

    @property
    def entry(self) -> Entry:
        assert self.target is not None
        found = self.executor.journal.entry(self.target.key)
        assert found is not None
        return found

    @property
    def installed(self) -> int:
        """The release that is installed as the agent knows; 0 for none."""
        assert self.target is not None
        current = self.executor.installed.slot(self.target.key).current
        return current.description.release if current else 0

    def turn(self) -> None:
        """What the agent does in one turn."""
        self.mono_ms += TURN_MS

        async def all_of_it() -> None:
            while await self.executor.advance(_NoModels()):  # type: ignore[arg-type]
                pass

        self.runner.run(all_of_it())

    def until(self, state: UpdateState, detail: str = "") -> None:
        """Take turns until the update is in ``state``, and says ``detail``."""

        def there() -> bool:
            self.turn()
            return self.entry.state is state and detail in self.entry.detail

        try:
            wait_until(there)
        except AssertionError:
            raise AssertionError(f"{self.entry.state}: {self.entry.detail}") from None

    def while_true(self, condition: Callable[[], bool], turns: int) -> None:
        """Take so many turns; ``condition`` holds after each."""
        for _turn in range(turns):
            self.turn()
            assert condition()
