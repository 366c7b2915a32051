"""The devices of the city: each one's folder, enrolled through the CLI, and its configuration."""

from pathlib import Path

from use_cases.water_network.demo import plan
from use_cases.water_network.demo.operating import Operator
from use_cases.water_network.demo.policies import PACK, in_fast_time


def enroll(operator: Operator, folder: Path, post: plan.Post, port: int) -> None:
    """Make the device's key and certificate, then add sensor, model and the terms of updates.

    Raises:
        OperatorError: the server did not take it.
    """
    home = folder / post.device
    operator.fleet(
        "device", "add", post.device, "--profile", "simulated", "--site", post.site, "--out", str(home)
    )  # fmt: skip
    (home / post.policy).write_text(in_fast_time((PACK / "policies" / post.policy).read_text()))
    config = home / "agent.toml"
    config.write_text(configured(config.read_text(), post, port))


def configured(skeleton: str, post: plan.Post, port: int) -> str:
    """The enrolled device's configuration with its meter, its model and how updates prove themselves."""
    interval = plan.interval_s(post)
    terms = (
        f"[updates]\npoll_interval_s = {plan.POLL_INTERVAL_S}\nprobation_s = {plan.PROBATION_S}\n"
        f"probation_windows = {plan.PROBATION_WINDOWS}\n"
    )
    skeleton = skeleton.replace("[updates]\n", terms)
    meter = f"""
[[sensors]]
kind = "modbus"
name = "meter"
host = "127.0.0.1"
port = {port}
unit = {post.unit}
interval_s = {interval}
timeout_s = 3.0
"""
    registers = "".join(
        _register(metric, unit, address, kind)
        for metric, unit, address, kind in (
            ("pressure", "m", 0, "float32"),
            ("flow", "L/s", 2, "float32"),
            ("served", "1", 4, "uint32"),
        )
    )
    model = f"""
[[models]]
folder = "{PACK / "models" / post.model}"
policy = "{post.policy}"
runtime = "{post.runtime}"
isolation = "{post.isolation}"
"""
    top = f"time_factor = {plan.TIME_FACTOR}\n"
    return f"{top}{skeleton}\n[spool]\nflush_interval_s = {interval}\n{meter}{registers}{model}"


def _register(metric: str, unit: str, address: int, kind: str) -> str:
    return f"""
[[sensors.registers]]
metric = "{metric}"
unit = "{unit}"
address = {address}
type = "{kind}"
"""
