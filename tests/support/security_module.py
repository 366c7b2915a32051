"""A real security module in software: SoftHSM, with tokens of its own in a folder."""

import os
import subprocess
from pathlib import Path

from fleet_signing.key_uri import KeyUri

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "5678"


class SecurityModule:
    """Two tokens. The library sees the tokens that are there when it is loaded, so both are made at once."""

    def __init__(self, folder: Path) -> None:
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        (folder / "tokens").mkdir()
        configuration = folder / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        for token in ("fleet", "other"):
            _run(
                "softhsm2-util", "--init-token", "--free", "--label", token, "--so-pin", "1234", "--pin", PIN
            )

    def uri(self, label: str, token: str = "fleet") -> KeyUri:
        return KeyUri(MODULE, token, label, self.pin_file)

    def make_key(self, label: str, kind: str = "EC:prime256v1") -> KeyUri:
        """A new key pair, made as the error of a missing one says."""
        log_in = ("--module", MODULE, "--login", "--pin", PIN, "--token-label", "fleet")
        _run("pkcs11-tool", *log_in, "--keypairgen", "--key-type", kind, "--label", label, "--usage-sign")
        return self.uri(label)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
