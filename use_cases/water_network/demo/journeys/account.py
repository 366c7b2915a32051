"""The meters refuse, what is under way arrives, and every reading is held against what its meter served."""

from statistics import median
from typing import Any

from fleet_protocol.texts import _
from hil.account import account
from use_cases.water_network.demo import plan
from use_cases.water_network.demo.stage import Stage, now_ms

MARGIN_MS = 60_000
"""Around the run, against clocks that differ."""

METRICS = ("served", "pressure", "flow")


def reconcile(stage: Stage, served: dict[int, int]) -> None:
    """Wait for the last reading of every device, then account for all of them."""
    stage.say(_("Reconciling every reading from sensor to row"))
    findings, observer = stage.findings, stage.observer
    findings.ended_ms = now_ms()
    for post in plan.POSTS:
        stage.until(
            _("the last reading of {device} arrives").format(device=post.device),
            lambda post=post: _has_arrived(stage, post, served[post.unit]),  # type: ignore[misc] # bound
        )
    for post in plan.POSTS:
        _account_for(stage, post, served[post.unit])
    findings.counts = observer.look().counts
    findings.events = list(observer.events())
    findings.escalations = observer.escalations()


def inference_times(stage: Stage) -> None:
    """Median inference time by runtime, in microseconds."""
    spent: dict[str, list[int]] = {}
    for post in plan.POSTS:
        answers = stage.observer.inferences(post.device, limit=200)
        own = [answer["latency_us"] for answer in answers if not answer["supersedes"]]
        spent.setdefault(post.runtime, []).extend(own)
    stage.findings.latency_us = {runtime: median(values) for runtime, values in spent.items() if values}


def _has_arrived(stage: Stage, post: plan.Post, served: int) -> bool:
    rows = stage.observer.readings(post.device, "served", now_ms() - 2 * MARGIN_MS, now_ms() + MARGIN_MS)
    return any(row["value"] == served for row in rows)


def _account_for(stage: Stage, post: plan.Post, served: int) -> None:
    findings = stage.findings
    rows = {metric: _rows(stage, post.device, metric) for metric in METRICS}
    times = {metric: [(row["time_ms"], row["value"]) for row in found] for metric, found in rows.items()}
    counter = [(value, time_ms) for time_ms, value in times["served"]]
    others = {metric: len(values) for metric, values in times.items() if metric != "served"}
    kills_ms = findings.kills_ms.get(post.device, [])
    findings.accounts.append(account(post.device, served, counter, kills_ms, others))
    findings.latencies_ms += [row["stored_ms"] - row["time_ms"] for row in rows["served"]]
    if post.source is plan.Source.NETWORK:
        findings.pressures[post.device] = times["pressure"]
        findings.scores[post.device] = _scores(stage, post.device)


def _rows(stage: Stage, device: str, metric: str) -> list[dict[str, Any]]:
    since_ms, until_ms = stage.findings.started_ms - MARGIN_MS, stage.findings.ended_ms + 2 * MARGIN_MS
    found = stage.observer.readings(device, metric, since_ms, until_ms)
    return [row for row in found if row["value"] is not None]


def _scores(stage: Stage, device: str) -> list[tuple[int, float]]:
    since_ms = stage.findings.started_ms - MARGIN_MS
    found = stage.observer.history(device, since_ms, stage.findings.ended_ms + MARGIN_MS)
    return [(one["time_ms"], one["score"]) for one in found if not one["supersedes"]]
