"""A server that answers about rollouts as the contract says, and keeps what it was told to do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException

from tests.support.waiting import free_port, wait_until

ROLLOUT = {
    "id": "r-1", "state": "running", "detail": "", "reason": "finds small leaks", "group": "old-town",
    "kind": "model", "name": "pressure_leak", "release": 4, "version": "1.3", "waves": ["50%", "100%"],
    "max_failures": 1, "soak_s": 60, "created_ms": 1, "ended_ms": None,
    "counts": {"waiting": 1, "assigned": 0, "done": 1, "failed": 0},
}  # fmt: skip


def _member(name: str, state: str) -> dict[str, Any]:
    return {"id": name, "state": state, "since_ms": 1, "presence": "online", "is_holding": False,
            "update": "", "done": 0, "size": 0, "refusal": "", "detail": ""}  # fmt: skip


def _wave(number: int, state: str, name: str, device_state: str) -> dict[str, Any]:
    return {"number": number, "state": state, "started_ms": 1, "ended_ms": None, "next_ms": None,
            "devices": [_member(name, device_state)]}  # fmt: skip


class RolloutServer:
    """One rollout, and the steps that were taken with it; ``refusal`` is answered to a step where set."""

    def __init__(self) -> None:
        self.url = ""
        self.state = "running"
        self.steps: list[str] = []
        self.refusal = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/rollouts")
        def rollouts() -> dict[str, Any]:
            return {"items": [ROLLOUT | {"state": self.state}], "next_after": None}

        @app.get("/v1/rollouts/r-1")
        def rollout() -> dict[str, Any]:
            waves = [_wave(1, "ended", "gw-01", "done"), _wave(2, "waiting", "gw-02", "waiting")]
            return {"rollout": ROLLOUT | {"state": self.state}, "waves": waves, "left_out": []}

        @app.post("/v1/rollouts/r-1/{step}")
        def steer(step: str) -> dict[str, Any]:
            if self.refusal:
                raise HTTPException(409, self.refusal)
            self.steps.append(step)
            self.state = {"pause": "paused", "resume": "running", "abort": "aborted"}[step]
            return {}

        return app


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """``app`` on a real socket; its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def rollout_server() -> Iterator[RolloutServer]:
    """The server, answering."""
    server = RolloutServer()
    with serving(server.app()) as url:
        server.url = url
        yield server
