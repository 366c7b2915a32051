"""Agents enroll and report; then agents, ingest and broker are killed, and readings flow again."""

from collections.abc import Callable
from typing import Final

from fleet_protocol.texts import _
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.stage import Stage, now_ms

FRESH_MS: Final = 5_000
VICTIMS: Final = ("gw-213", "gw-129", plan.LEAK_GUARD, "ingest", "mosquitto")


def everybody_reports(stage: Stage) -> None:
    """Wait until every agent is online and its newest reading is stored."""
    stage.say(_("Waiting for the first reading of every agent"))
    stage.until(_("every agent is online and its readings are stored"), reporting(stage))


def kills(stage: Stage) -> None:
    """Kill some of everything; nobody loses anything by it."""
    for victim in VICTIMS:
        stage.kill(victim)
    stage.until(_("readings flow again after the kills"), reporting(stage))


def reporting(stage: Stage) -> Callable[[], bool]:
    """Whether every agent is online and fresh, by a reading of after this was asked.

    What was read before a kill says nothing of who was killed.
    """
    asked_ms = now_ms()

    def holds() -> bool:
        city = stage.observer.look()
        devices, most_ms = city.devices, min(FRESH_MS, city.now_ms - asked_ms)
        fresh = [view.reading_age_ms is not None and view.reading_age_ms < most_ms for view in devices]
        return len(devices) == len(plan.POSTS) and all(fresh) and all(v.state == "online" for v in devices)

    return holds
