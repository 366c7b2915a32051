"""Boards with two copies of their system and a real updater: RAUC or SWUpdate as Debian ships them.

A copy is a file, a restart is a new boot id and a new word of what runs. The bootloader is as simple as
one can be: it starts what the tool says, and after a start that it is to count as vain, the other copy.
Each board has its own ``/etc``, laid over the machine's in a mount namespace of the tool's own.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.waiting import wait_until

SIZE = 64 * 1024
AnyBoard = TypeVar("AnyBoard", "RaucBoard", "SwupdateBoard")
_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/></policy></busconfig>
"""
_HANDLER = """\
#!/bin/sh
case "$1" in
get-primary) cat {folder}/primary ;;
set-primary) echo "$2" >{folder}/primary ;;
get-state) cat {folder}/state.$2 ;;
set-state) echo "$3" >{folder}/state.$2 ;;
*) exit 1 ;;
esac
"""
_SYSTEM = """\
[system]
compatible=argan-test
bootloader=custom
statusfile={folder}/rauc.status
mountprefix={folder}/mnt
bundle-formats=plain verity
[handlers]
bootloader-custom-backend={folder}/handler
[keyring]
path={folder}/cert.pem
[slot.rootfs.0]
device={folder}/copy.A
type=raw
bootname=A
[slot.rootfs.1]
device={folder}/copy.B
type=raw
bootname=B
"""


def require(*tools: str) -> None:
    """Skip where a tool is missing, or nobody may mount."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: run 'scripts/bootstrap tests' as root")
    if subprocess.run(("unshare", "-m", "true"), capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace of its own: run as root")


@contextlib.contextmanager
def rauc_board(folder: Path, patch: pytest.MonkeyPatch) -> Iterator["RaucBoard"]:
    """A board with RAUC, switched on."""
    require("rauc", "dbus-daemon", "mksquashfs", "openssl")
    board = RaucBoard(folder)
    patch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={folder}/bus")
    patch.setenv("PATH", f"{folder}/bin{os.pathsep}{os.environ['PATH']}")
    with board.switched_on():
        yield from _in_use(board)


@contextlib.contextmanager
def swupdate_board(folder: Path, patch: pytest.MonkeyPatch) -> Iterator["SwupdateBoard"]:
    """A board with SWUpdate, switched on."""
    require("swupdate", "fw_printenv", "openssl")
    board = SwupdateBoard(folder)
    patch.setenv("PATH", f"{folder}/bin{os.pathsep}{os.environ['PATH']}")
    yield from _in_use(board)


def _in_use(board: AnyBoard) -> Iterator[AnyBoard]:
    try:
        yield board
    finally:
        for close in board.closing:
            close()


class RaucBoard:
    """RAUC's service on a bus of its own, with two raw slots and a bootloader of four files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.boot, self.runs = folder, secrets.token_hex(8), "A"
        self.closing: list[Callable[[], None]] = []
        self._bus: subprocess.Popen[bytes] | None = None
        self._service: subprocess.Popen[bytes] | None = None
        for name in ("etc/rauc", "mnt", "bin"):
            (folder / name).mkdir(parents=True)
        _certificate(folder, "cert", "key")
        _certificate(folder, "foreign", "foreign-key")
        (folder / "etc/rauc/system.conf").write_text(_SYSTEM.format(folder=folder))
        (folder / "bus.conf").write_text(_BUS.format(path=folder / "bus"))
        _script(folder / "handler", _HANDLER.format(folder=folder))
        _wrap(folder, "rauc")
        (folder / "primary").write_text("A\n")
        for copy in "AB":
            (folder / f"copy.{copy}").write_bytes(b"\0" * SIZE * 2)
            (folder / f"state.{copy}").write_text("good\n")

    @contextlib.contextmanager
    def switched_on(self) -> Iterator[None]:
        """With bus and service."""
        command = ("dbus-daemon", f"--config-file={self.folder}/bus.conf", "--nofork")
        self._bus = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_until((self.folder / "bus").exists)
            self.start_service()
            yield
        finally:
            self.stop_service()
            _end(self._bus)

    def start_service(self) -> None:
        """Start RAUC's service, which tells what runs, and wait until it answers."""
        command = (self.folder / "bin/rauc", f"--override-boot-slot={self.runs}", "service")
        environment = os.environ | {"DBUS_STARTER_BUS_TYPE": "system"}
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
        wait_until(lambda: self._status() is not None)

    def stop_service(self) -> None:
        """Stop it."""
        if self._service is not None:
            _end(self._service)

    def image(self, content: bytes, *, foreign: bool = False, compatible: str = "argan-test") -> Path:
        source = self.folder / "bundle"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        (source / "rootfs.img").write_bytes(content)
        (source / "manifest.raucm").write_text(
            f"[update]\ncompatible={compatible}\nversion=2\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n"
        )
        out = self.folder / f"{secrets.token_hex(4)}.raucb"
        cert, key = ("foreign", "foreign-key") if foreign else ("cert", "key")
        _call(
            "rauc",
            f"--cert={self.folder}/{cert}.pem",
            f"--key={self.folder}/{key}.pem",
            "bundle",
            source,
            out,
        )
        return out

    def restart(self, *, vain: bool = False) -> None:
        self.stop_service()
        self.runs = _other(self.starts_next()) if vain else self.starts_next()
        self.boot = secrets.token_hex(8)
        self.start_service()

    def content(self, copy: str) -> bytes:
        return (self.folder / f"copy.{copy}").read_bytes()

    def starts_next(self) -> str:
        return (self.folder / "primary").read_text().strip()

    def state(self, copy: str) -> str:
        """Whether a copy is marked as good or bad."""
        return (self.folder / f"state.{copy}").read_text().strip()

    def _status(self) -> object:
        command = (self.folder / "bin/rauc", "status", "--output-format=json")
        done = subprocess.run(command, capture_output=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None


class SwupdateBoard:
    """SWUpdate with two raw copies and U-Boot's environment in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.boot, self.runs = folder, secrets.token_hex(8), "A"
        self.closing: list[Callable[[], None]] = []
        for name in ("etc", "bin", "tmp"):
            (folder / name).mkdir(parents=True)
        for names in (("cert", "key"), ("foreign", "foreign-key")):
            _certificate(folder, *names, "-addext", "extendedKeyUsage=emailProtection")
        (folder / "etc/fw_env.config").write_text(f"{folder}/env 0x0 0x4000\n")
        (folder / "etc/hwrevision").write_text("test 1.0\n")
        (folder / "etc/swupdate.cfg").write_text(
            f'globals: {{ public-key-file = "{folder}/cert.pem"; bootloader = "uboot"; }};\n'
        )
        (folder / "env").write_bytes(b"\0" * 0x4000)
        (folder / "first.env").write_text("rootpart=A\nbootcount=0\n")
        for copy in "AB":
            (folder / f"copy.{copy}").write_bytes(b"\0" * SIZE * 2)
        # It looks at the machine's real root; this board's is what its bootloader has started.
        _wrap(folder, "swupdate", f'[ "$1" = -g ] && exec cat {folder}/root\n')
        for tool in ("fw_printenv", "fw_setenv"):
            _wrap(folder, tool)
        self._say_root()
        _call(folder / "bin/fw_setenv", "-f", folder / "first.env", "rootpart", "A")

    @property
    def copies(self) -> dict[str, str]:
        """As ``copies`` of [os]."""
        return {"/dev/test-A": "stable,to-b", "/dev/test-B": "stable,to-a"}

    def image(self, content: bytes, *, foreign: bool = False) -> Path:
        out = self.folder / f"{secrets.token_hex(4)}.swu"
        data, description, signature = (
            self.folder / each for each in ("rootfs.img", "sw-description", "sig")
        )
        data.write_bytes(content)
        digest = _call("sha256sum", data).split()[0]
        description.write_text(
            'software = { version = "2"; hardware-compatibility: ["1.0"]; stable: {'
            + "".join(self._selection(copy, digest) for copy in "AB")
            + "}; }\n"
        )
        cert, key = ("foreign", "foreign-key") if foreign else ("cert", "key")
        _call(
            "openssl", "cms", "-sign", "-in", description, "-out", signature, "-signer",
            f"{self.folder}/{cert}.pem", "-inkey", f"{self.folder}/{key}.pem", "-outform", "DER",
            "-nosmimecap", "-binary",
        )  # fmt: skip
        out.write_bytes(
            _cpio(
                {
                    "sw-description": description.read_bytes(),
                    "sw-description.sig": signature.read_bytes(),
                    "rootfs.img": content,
                }
            )
        )
        return out

    def _selection(self, copy: str, digest: str) -> str:
        device = f"{self.folder}/copy.{copy}"
        image = f'filename = "rootfs.img"; device = "{device}"; type = "raw"; sha256 = "{digest}";'
        first, second = f'name = "rootpart"; value = "{copy}";', 'name = "upgrade_available"; value = "1";'
        return (
            f"to-{copy.lower()}: {{ images: ( {{ {image} }} ); "
            f"bootenv: ( {{ {first} }}, {{ {second} }} ); }};"
        )

    def restart(self, *, vain: bool = False) -> None:
        self.runs = _other(self.starts_next()) if vain else self.starts_next()
        self.boot = secrets.token_hex(8)
        self._say_root()

    def content(self, copy: str) -> bytes:
        return (self.folder / f"copy.{copy}").read_bytes()

    def starts_next(self) -> str:
        return self.environment()["rootpart"]

    def environment(self) -> dict[str, str]:
        """U-Boot's variables."""
        lines = _call(self.folder / "bin/fw_printenv").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def _say_root(self) -> None:
        (self.folder / "root").write_text(f"/dev/test-{self.runs}\n")


def _other(copy: str) -> str:
    return "B" if copy == "A" else "A"


def _wrap(folder: Path, tool: str, before: str = "") -> None:
    """``tool`` of the board: the machine's own, with the board's ``/etc`` over the machine's."""
    real = shutil.which(tool)
    mount = f"mount -t overlay overlay -o lowerdir={folder}/etc:/etc /etc"
    export = f"export TMPDIR={folder}/tmp\n" if (folder / "tmp").is_dir() else ""
    _script(
        folder / "bin" / tool,
        f'#!/bin/sh\n{before}{export}exec unshare -m sh -c \'{mount} && exec {real} "$@"\' {tool} "$@"\n',
    )


def _script(file: Path, content: str) -> None:
    file.write_text(content)
    file.chmod(0o755)


def _certificate(folder: Path, cert: str, key: str, *more: str) -> None:
    _call(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "3650", "-keyout", folder / f"{key}.pem", "-out", folder / f"{cert}.pem",
        "-subj", f"/CN={cert}", *more,
    )  # fmt: skip


def _call(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _cpio(files: dict[str, bytes]) -> bytes:
    """``files`` in the one form of cpio that SWUpdate reads, with checksums."""
    out = bytearray()
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        fields = (
            number,
            0o100644,
            0,
            0,
            1,
            0,
            len(content),
            0,
            0,
            0,
            0,
            len(name) + 1,
            sum(content) & 0xFFFFFFFF,
        )
        head = b"070702" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        for part in (head, content):
            out += part + b"\0" * (-len(part) % 4)
    return bytes(out + b"\0" * (-len(out) % 512))
