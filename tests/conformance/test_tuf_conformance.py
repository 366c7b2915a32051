"""The public conformance suite judges the verifier that runs on devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = os.environ.get("ARGAN_TUF_CONFORMANCE", "")
HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not SUITE, reason="ARGAN_TUF_CONFORMANCE names no checkout of tuf-conformance")
def test_every_case_of_the_public_suite_passes(tmp_path: Path) -> None:
    entry = tmp_path / "client"
    entry.write_text(
        f'#!/bin/sh\ncd {HERE.parents[1]} && exec {sys.executable} -m tests.conformance.client "$@"\n'
    )
    entry.chmod(0o755)
    (tmp_path / "client.xfails").write_text((HERE / "xfails").read_text())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tuf_conformance",
            "-p",
            "no:cacheprovider",
            "--entrypoint",
            entry,
        ],
        cwd=SUITE,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout[-5000:]
