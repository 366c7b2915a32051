"""Which board fills a device's post: one at a time, from one swap to the next."""

from sqlmodel import Session, col, select

from fleet_server.database.models import HardwareUnit


def mount(session: Session, tenant: str, device: str, serial: str, now_ms: int) -> None:
    """Note that the board ``serial`` fills the post of ``device`` from now on, and no other one."""
    standing = session.exec(
        select(HardwareUnit)
        .where(HardwareUnit.tenant == tenant, HardwareUnit.device == device)
        .where(col(HardwareUnit.until_ms).is_(None))
    ).all()
    if any(unit.serial == serial for unit in standing):
        return
    for unit in standing:
        unit.until_ms = now_ms
        session.add(unit)
    session.add(HardwareUnit(tenant=tenant, serial=serial, device=device, since_ms=now_ms))
    session.flush()
