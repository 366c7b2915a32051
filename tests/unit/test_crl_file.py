"""The file of the lists of the revoked is parsed once for each time that it is written."""

import datetime as dt
from pathlib import Path

from fleet_server.authority.authority import open_authority
from fleet_server.authority.issuing import Revoked
from fleet_server.identity.crl_routes import CrlFile


def test_it_is_parsed_when_it_was_written_and_not_when_it_is_asked_for(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "authority", may_make=True)
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.crl_pem([]))
    file = CrlFile(path)
    first = file.current()
    assert file.current() is first
    assert len(first.by_issuer) >= 1
    path.write_bytes(authority.crl_pem([Revoked(7, int(dt.datetime.now(dt.UTC).timestamp() * 1000), "")]))
    second = file.current()
    assert second.by_issuer != first.by_issuer
    assert second.by_issuer.keys() == first.by_issuer.keys()
