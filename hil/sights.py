"""What a scenario waits for, and how it is seen: through the server's API, like any other client."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleet_console.errors import ConsoleError
from fleet_console.sources.http import Place, Server
from hil.account import Account, account
from hil.installation import Installation, Post
from hil.scenario import Await


@dataclass(frozen=True, slots=True)
class Look:
    """The fleet at one moment: seconds since the start, readings stored, who is online, what is raised."""

    at_s: float
    readings: int
    online: tuple[str, ...]
    codes: tuple[str, ...]


class Sight:
    """Asks the server of one installation."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._data: Path = installation.server_data

    def look(self, started: float) -> Look | None:
        """The fleet now; None while the server does not answer."""
        try:
            with self._server() as server:
                stats = server.get("/v1/stats").content
                devices = server.get("/v1/devices").content["items"]
        except ConsoleError:
            return None
        return Look(
            at_s=time.monotonic() - started,
            readings=stats["counts"]["readings"],
            online=tuple(item["id"] for item in devices if item["state"] == "online"),
            codes=tuple(sorted({code["code"] for item in devices for code in item["health"]})),
        )

    def holds(self, step: Await) -> Callable[[], bool]:
        """Whether what ``step`` waits for is there, for its device or for every one."""
        named = [step.device] if step.device else list(self._installation.posts)
        posts = [self._installation.posts[name] for name in named]
        seen = _SEEN[step.what]
        value = step.value or str(time.time_ns() // 1_000_000)

        def now() -> bool:
            try:
                with self._server() as server:
                    return all(seen(server, self._installation, post, value) for post in posts)
            except ConsoleError:
                return False

        return now

    def accounts(self, served: dict[int, int]) -> list[Account]:
        """Every device's readings, from the meter to the database."""
        with self._server() as server:
            return [_account(server, post, served[post.unit]) for post in self._installation.posts.values()]

    def _server(self) -> Any:
        return Place(data=self._data).connect()


def _page(server: Server, post: Post) -> dict[str, Any]:
    page: dict[str, Any] = server.get(f"/v1/devices/{post.device.name}").content
    return page


def _updates(server: Server, post: Post) -> list[dict[str, Any]]:
    reported = _page(server, post)["reported"] or {}
    found: list[dict[str, Any]] = reported.get("updates", [])
    return found


def _is_online(server: Server, _installation: Installation, post: Post, _value: str) -> bool:
    return bool(_page(server, post)["device"]["state"] == "online")


def _is_offline(server: Server, installation: Installation, post: Post, value: str) -> bool:
    return not _is_online(server, installation, post, value)


def _is_fresh(server: Server, _installation: Installation, post: Post, value: str) -> bool:
    """A reading of after ``value``, ms since 1970: when the waiting began, on this machine's clock."""
    items = server.get(f"/v1/devices/{post.device.name}/readings").content["items"]
    return any(item["time_ms"] > int(value) for item in items if item["value"] is not None)


def _is_stored(server: Server, installation: Installation, post: Post, _value: str) -> bool:
    """All that the meter has served."""
    served = installation.served()[post.unit]
    rows = _rows(server, f"/v1/devices/{post.device.name}/readings", "served")
    return any(row["value"] >= served for row in rows)


def _is_raised(server: Server, _installation: Installation, post: Post, value: str) -> bool:
    code, _separator, text = value.partition(" ")
    raised = _page(server, post)["device"]["health"]
    return any(item["code"] == code and text in item["detail"] for item in raised)


def _is_well(server: Server, installation: Installation, post: Post, value: str) -> bool:
    return not _is_raised(server, installation, post, value)


def _has_event(server: Server, _installation: Installation, post: Post, value: str) -> bool:
    items = server.pages("/v1/events").content
    return any(item["device"] == post.device.name and item["name"] == value for item in items)


def _has_update(server: Server, _installation: Installation, post: Post, value: str) -> bool:
    return any(each["state"] == value for each in _updates(server, post))


def _has_refusal(server: Server, _installation: Installation, post: Post, value: str) -> bool:
    return any(each["refusal"] == value for each in _updates(server, post))


def _runs_release(server: Server, _installation: Installation, post: Post, value: str) -> bool:
    kind, name, release = value.split()
    return any(
        (each["kind"], each["name"], each["installed"]) == (kind, name, int(release))
        for each in _updates(server, post)
    )


def _is_answered(server: Server, _installation: Installation, post: Post, value: str) -> bool:
    """A central answer about something of after ``value``, ms since 1970: when the waiting began."""
    items = server.get(f"/v1/devices/{post.device.name}/inferences", limit=1000).content["items"]
    return any(item["supersedes"] and item["time_ms"] > int(value) for item in items)


_SEEN: Final[dict[str, Callable[[Server, Installation, Post, str], bool]]] = {
    "online": _is_online,
    "offline": _is_offline,
    "fresh": _is_fresh,
    "stored": _is_stored,
    "health": _is_raised,
    "well": _is_well,
    "event": _has_event,
    "update": _has_update,
    "refusal": _has_refusal,
    "release": _runs_release,
    "answered": _is_answered,
}


def _rows(server: Server, path: str, metric: str) -> list[dict[str, Any]]:
    """All stored values of ``metric``; a scenario is short enough for one answer."""
    items = server.get(path, metric=metric, limit=10_000).content["items"]
    return [row for row in items if row["value"] is not None]


def _account(server: Server, post: Post, served: int) -> Account:
    path = f"/v1/devices/{post.device.name}/readings"
    counter = [(row["value"], row["time_ms"]) for row in _rows(server, path, "served")]
    flows = len(_rows(server, path, "flow"))
    return account(post.device.name, served, counter, post.kills_ms, {"flow": flows})
