"""``python -m hil run [SCENARIO ...]``: put agents and a server through scenarios and report.

Exit codes: 0 all passed, 1 one failed or a required one could not be run, 2 wrong command line or
scenario file.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from fleet_protocol.texts import _
from hil import junit, report, scenario
from hil.errors import ScenarioError
from hil.runner import Verdict, run_all
from hil.stopping import StoppedError, listen

SEED = 2026


def main() -> int:
    """Run one command; the exit code."""
    options = _parser().parse_args()
    try:
        return _COMMANDS[options.command](options)
    except ScenarioError as error:
        print(f"hil: {error}", file=sys.stderr)
        return 2
    except StoppedError:
        print(_("Stopped; no process is left."), file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hil", description=_("Agents and a server under faults."))
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help=_("run scenarios and report"))
    run.add_argument("names", nargs="*", metavar="SCENARIO", help=_("all where none is named"))
    run.add_argument("--rig", choices=("simulated", "namespace"), help=_("where a scenario allows it"))
    run.add_argument("--out", type=Path, metavar="DIR", help=_("write report.html and junit.xml there"))
    run.add_argument("--seed", type=int, default=SEED, help=_("of everything random"))
    commands.add_parser("list", help=_("name the scenarios"))
    commands.add_parser("schema", help=_("print the JSON Schema of a scenario"))
    return parser


def _run(options: argparse.Namespace) -> int:
    listen()
    chosen = scenario.by_name(options.names)
    runs = run_all(chosen, options.rig, options.seed, _say)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "junit.xml").write_bytes(junit.render(runs))
        (options.out / "report.html").write_text(report.render(runs), encoding="utf-8")
    failed = sum(run.verdict is Verdict.FAILED for run in runs)
    skipped = sum(run.verdict is Verdict.SKIPPED for run in runs)
    passed = len(runs) - failed - skipped
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def _list(_options: argparse.Namespace) -> int:
    for each in scenario.every():
        print(f"{each.name:32} {'/'.join(each.rigs):20} {each.title}")
    return 0


def _schema(_options: argparse.Namespace) -> int:
    print(json.dumps(scenario.schema(), indent=2))
    return 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


_COMMANDS = {"run": _run, "list": _list, "schema": _schema}


if __name__ == "__main__":
    sys.exit(main())
