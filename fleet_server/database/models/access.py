"""People, what they may do, what they ask for and agree to, and the record of what they did."""

from sqlalchemy import ForeignKeyConstraint, Index, Text
from sqlmodel import Field

from fleet_server.database.models.base import Model, integer


class Person(Model, table=True):
    """Somebody with an account; also the operator that a new installation makes for itself.

    ``password`` is an argon2 hash, empty where there is none; ``subject`` who they are at the OIDC
    issuer, empty for nobody. After failed logins nothing is tried before ``locked_until_ms``.
    """

    __table_args__ = (Index("ix_person_tenant_subject", "tenant", "subject"),)

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    id: str = Field(primary_key=True, max_length=63)
    name: str = Field(max_length=200)
    password: str = Field(default="", max_length=200)
    subject: str = Field(default="", max_length=255)
    failed_logins: int = Field(default=0)
    locked_until_ms: int = integer(default=0)
    created_ms: int = integer()
    disabled_ms: int | None = integer(default=None)


class Token(Model, table=True):
    """A token of a person; only its digest is kept. ``name`` is unique among the person's living ones.

    ``role``, ``site`` and ``tag`` narrow what the person may do; empty narrows nothing. ``kind`` is
    ``api`` or ``session``.
    """

    __table_args__ = (ForeignKeyConstraint(["tenant", "person"], ["person.tenant", "person.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    sha256: str = Field(primary_key=True, max_length=64)
    person: str = Field(max_length=63)
    name: str = Field(max_length=64)
    kind: str = Field(default="api", max_length=16)
    role: str = Field(default="", max_length=16)
    site: str = Field(default="", max_length=63)
    tag: str = Field(default="", max_length=63)
    created_ms: int = integer()
    expires_ms: int | None = integer(default=None)
    revoked_ms: int | None = integer(default=None)


class Role(Model, table=True):
    """What a person may do (viewer, technician, operator, approver, admin), and where.

    ``site`` and ``tag`` narrow it; empty means everywhere in the tenant.
    """

    __table_args__ = (ForeignKeyConstraint(["tenant", "person"], ["person.tenant", "person.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    person: str = Field(primary_key=True, max_length=63)
    role: str = Field(primary_key=True, max_length=16)
    site: str = Field(default="", primary_key=True, max_length=63)
    tag: str = Field(default="", primary_key=True, max_length=63)


class Proposal(Model, table=True):
    """A change that somebody asks for, and what it would do; it waits for approvals.

    ``change`` and ``radius`` are canonical JSON that nobody alters: what it would do, and what it would
    touch as it was then; ``sha256`` is the digest of all that an approver is shown. ``needed`` is how
    many approvals it takes. ``outcome`` says what came of it.
    """

    __table_args__ = (ForeignKeyConstraint(["tenant", "proposer"], ["person.tenant", "person.id"]),)

    tenant: str = Field(primary_key=True, max_length=63)
    id: str = Field(primary_key=True, max_length=36)
    proposer: str = Field(max_length=63)
    action: str = Field(max_length=64)
    change: str = Field(sa_type=Text)
    sha256: str = Field(max_length=64)
    radius: str = Field(sa_type=Text)
    reason: str = Field(max_length=200)
    needed: int
    state: str = Field(max_length=16)
    outcome: str = Field(default="", max_length=300)
    created_ms: int = integer()
    expires_ms: int = integer()
    decided_ms: int | None = integer(default=None)


class Approval(Model, table=True):
    """One person's yes or no to a proposal; never the proposer's own. ``sha256`` is what they saw."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "proposal"], ["proposal.tenant", "proposal.id"]),
        ForeignKeyConstraint(["tenant", "person"], ["person.tenant", "person.id"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    proposal: str = Field(primary_key=True, max_length=36)
    person: str = Field(primary_key=True, max_length=63)
    agrees: bool
    sha256: str = Field(max_length=64)
    reason: str = Field(default="", max_length=200)
    given_ms: int = integer()


class BreakGlass(Model, table=True):
    """That somebody carried a proposal out without approvals, and who else has taken note of it."""

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "proposal"], ["proposal.tenant", "proposal.id"]),
        ForeignKeyConstraint(["tenant", "person"], ["person.tenant", "person.id"]),
    )

    tenant: str = Field(primary_key=True, max_length=63)
    proposal: str = Field(primary_key=True, max_length=36)
    person: str = Field(max_length=63)
    reason: str = Field(max_length=200)
    broken_ms: int = integer()
    acknowledged_by: str = Field(default="", max_length=63)
    acknowledged_ms: int | None = integer(default=None)


class ApprovalRule(Model, table=True):
    """How many approvals a change takes at a site; an empty site or action means all others."""

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    site: str = Field(default="", primary_key=True, max_length=63)
    action: str = Field(default="", primary_key=True, max_length=64)
    approvals: int


class AuditRecord(Model, table=True):
    """One change, chained by digest to the one before it in its tenant.

    ``before_sha256`` and ``after_sha256`` are digests of what was changed, empty where there was
    nothing. ``detail`` is canonical JSON and holds no secret.
    """

    __table_args__ = (Index("ix_audit_record_tenant_action", "tenant", "action", "time_ms"),)

    tenant: str = Field(primary_key=True, foreign_key="tenant.id", max_length=63)
    number: int = integer(primary_key=True)
    time_ms: int = integer()
    person: str = Field(max_length=63)
    role: str = Field(max_length=16)
    source: str = Field(max_length=64)
    action: str = Field(max_length=64)
    subject: str = Field(max_length=200)
    before_sha256: str = Field(max_length=64)
    after_sha256: str = Field(max_length=64)
    detail: str = Field(sa_type=Text)
    previous_sha256: str = Field(max_length=64)
    sha256: str = Field(max_length=64)
