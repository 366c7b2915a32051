"""Everything that one device needs for its updates as one tar, to be carried to it on a stick.

The layout is that of the URLs, so that the device verifies it with the same code.
"""

import io
import tarfile
from datetime import datetime
from pathlib import Path

import msgspec
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fleet_protocol.versions import REQUEST, ReceiptRequest
from fleet_server.updates.office import Office
from fleet_signing import image
from fleet_signing.metadata import decode, encode, file_name, targets_in


def write_bundle(office: Office, asked: ReceiptRequest, at: datetime, out: Path) -> None:
    """Write what a device shall have at ``at``, and both repositories' word for it, to ``out``.

    ``asked`` names the device, and the nonce that its receipt shall answer.

    Raises:
        NoCeremony: nothing is vouched for yet.
        NotFound: there is no such device.
    """
    published = office.repository.require()
    office.repository.renew(at)
    device = asked.device
    current = office.director.current(device, at)
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, REQUEST, msgspec.json.encode(asked))
        director = f"director/{device}/metadata"
        _add_roots(tar, "image/metadata", published.image_roots)
        _add_roots(tar, director, published.director_roots)
        for name, content in _image_metadata(office).items():
            _add(tar, f"image/metadata/{name}", content)
        for name, content in current.files.items():
            _add(tar, f"{director}/{name}", content)
        for target in targets_in(decode(current.targets, Targets).signed):
            served = f"image/targets/{image.served_path(target)}"
            tar.add(office.artifacts.path(target.sha256), served, filter=_plain)


def _image_metadata(office: Office) -> dict[str, bytes]:
    """The current timestamp, and what it names, all of one moment."""
    timestamp_bytes = office.repository.metadata("timestamp.json") or b""
    timestamp = decode(timestamp_bytes, Timestamp)
    name = file_name(Snapshot.type, timestamp.signed.snapshot_meta.version)
    files = {name: office.repository.metadata(name) or b""}
    snapshot = decode(files[name], Snapshot)
    for role in image.OFFLINE_ROLES:
        each = file_name(role, snapshot.signed.meta[f"{role}.json"].version)
        files[each] = office.repository.metadata(each) or b""
    return files | {"timestamp.json": timestamp_bytes}


def _add_roots(tar: tarfile.TarFile, folder: str, roots: tuple[Metadata[Root], ...]) -> None:
    for root in roots:
        _add(tar, f"{folder}/{file_name(Root.type, root.signed.version)}", encode(root))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without who owns it and when it was made."""
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    entry.mode = 0o644
    return entry
