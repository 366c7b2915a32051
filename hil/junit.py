"""Runs as JUnit XML, as continuous integration reads it. Pure."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from hil.runner import Run, Verdict


def render(runs: Sequence[Run]) -> bytes:
    """One test case a run."""
    suite = ET.Element(
        "testsuite",
        name="hil",
        tests=str(len(runs)),
        failures=str(sum(run.verdict is Verdict.FAILED for run in runs)),
        skipped=str(sum(run.verdict is Verdict.SKIPPED for run in runs)),
        time=f"{sum(run.seconds for run in runs):.3f}",
    )
    for run in runs:
        _case(suite, run)
    ET.indent(suite)
    written: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return written


def _case(suite: ET.Element, run: Run) -> None:
    case = ET.SubElement(
        suite, "testcase", classname=f"hil.{run.rig}", name=run.scenario.name, time=f"{run.seconds:.3f}"
    )
    if run.verdict is not Verdict.PASSED:
        kind = "failure" if run.verdict is Verdict.FAILED else "skipped"
        ET.SubElement(case, kind, message=run.message).text = "\n".join(
            f"{step.began_s:.1f} s {step.text} {step.problem}" for step in run.steps
        )
