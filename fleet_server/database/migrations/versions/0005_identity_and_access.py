"""What identity, access, approvals and the audit chain remember.

Nothing has written proposals, approvals, enrollments or audit records before: those tables are made
anew. Certificates of before came from an authority of another layout, which no server opens any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PERSON = ("password", "subject", "failed_logins", "locked_until_ms")
_TOKEN = ("kind", "role", "site", "tag")
_CERTIFICATE = ("key_sha256", "issuer", "trust_sha256", "revoked_reason", "enforced_ms")
_NEW = ("claim", "factory_batch", "hold", "device_tag", "approval_rule", "escalation_budget", "break_glass")
_UNENFORCED = sa.text("revoked_reason <> '' AND enforced_ms IS NULL")
_UNUSED = ("approval", "proposal", "enrollment", "audit_record")

# A hurdle for mistakes, not for whoever owns the table: they can drop a trigger. The chain proves.
_APPEND_ONLY = {
    "sqlite": (
        """CREATE TRIGGER audit_record_update BEFORE UPDATE ON audit_record
        BEGIN SELECT RAISE(ABORT, 'audit_record is append-only'); END""",
        """CREATE TRIGGER audit_record_delete BEFORE DELETE ON audit_record
        BEGIN SELECT RAISE(ABORT, 'audit_record is append-only'); END""",
        # INSERT OR REPLACE deletes without asking the trigger above.
        """CREATE TRIGGER audit_record_replace BEFORE INSERT ON audit_record
        WHEN EXISTS (SELECT 1 FROM audit_record WHERE tenant = NEW.tenant AND number = NEW.number)
        BEGIN SELECT RAISE(ABORT, 'audit_record is append-only'); END""",
    ),
    "postgresql": (
        """CREATE FUNCTION audit_record_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'audit_record is append-only'; END $$""",
        """CREATE TRIGGER audit_record_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_record
        FOR EACH STATEMENT EXECUTE FUNCTION audit_record_refuse()""",
    ),
}


def upgrade() -> None:
    for table in _UNUSED:
        op.drop_table(table)
    _columns(
        "person",
        _text("password", 200),
        _text("subject", 255),
        _count("failed_logins"),
        _zero("locked_until_ms"),
    )
    op.create_index(op.f("ix_person_tenant_subject"), "person", ["tenant", "subject"])
    _columns("token", _text("kind", 16, "api"), _text("role", 16), _text("site", 63), _text("tag", 63))
    _columns(
        "certificate",
        *(_text(name, 64) for name in _CERTIFICATE[:3]),
        _text("revoked_reason", 32),
        sa.Column("enforced_ms", sa.BigInteger(), nullable=True),
    )
    op.create_index(op.f("ix_certificate_key_sha256"), "certificate", ["key_sha256"])
    op.create_index(
        op.f("ix_certificate_unenforced"),
        "certificate",
        ["tenant", "serial"],
        sqlite_where=_UNENFORCED,
        postgresql_where=_UNENFORCED,
    )
    _devices()
    _decisions()
    _audit()


def downgrade() -> None:
    for table in (*_NEW, *_UNUSED):
        op.drop_table(table)
    op.drop_index(op.f("ix_certificate_unenforced"), "certificate")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_record_refuse()")
    op.drop_index(op.f("ix_certificate_key_sha256"), "certificate")
    op.drop_index(op.f("ix_person_tenant_subject"), "person")
    for table, columns in (("certificate", _CERTIFICATE), ("token", _TOKEN), ("person", _PERSON)):
        with op.batch_alter_table(table) as changed:
            for column in columns:
                changed.drop_column(column)
    _as_before()


def _devices() -> None:
    op.create_table(
        "device_tag",
        *_texts(tenant=63, device=63, tag=63),
        _refers("device_tag", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", "tag", name=op.f("pk_device_tag")),
    )
    op.create_table(
        "hold",
        *_texts(tenant=63, device=63),
        _number("since_ms"),
        *_texts(code=64, reason=200),
        _refers("hold", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", name=op.f("pk_hold")),
    )
    op.create_table(
        "enrollment",
        *_texts(tenant=63, secret_sha256=64, device=63, profile=64, site=63),
        sa.Column("replaces", sa.Boolean(), nullable=False),
        *_texts(invited_by=63),
        *_numbers("created_ms", "expires_ms"),
        _number("used_ms", nullable=True),
        *_texts(key_sha256=64),
        _number("revoked_ms", nullable=True),
        _refers("enrollment", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "secret_sha256", name=op.f("pk_enrollment")),
    )
    op.create_table(
        "factory_batch",
        *_texts(tenant=63, id=63, profile=64, site=63),
        sa.Column("most", sa.Integer(), nullable=False),
        _long("claim_pem"),
        *_texts(made_by=63),
        *_numbers("created_ms", "expires_ms"),
        _number("closed_ms", nullable=True),
        _refers("factory_batch", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_factory_batch")),
    )
    op.create_table(
        "claim",
        *_texts(tenant=63, id=36, batch=63, serial=128),
        _long("csr_pem"),
        *_texts(key_sha256=64, source=64, state=16, device=63, decided_by=63, reason=200),
        _number("asked_ms"),
        _number("decided_ms", nullable=True),
        _refers("claim", ["tenant", "batch"], "factory_batch", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_claim")),
    )
    op.create_index(op.f("ix_claim_batch"), "claim", ["batch"])
    op.create_index(op.f("ix_claim_key_sha256"), "claim", ["key_sha256"])


def _decisions() -> None:
    op.create_table(
        "proposal",
        *_texts(tenant=63, id=36, proposer=63, action=64),
        _long("change"),
        *_texts(sha256=64),
        _long("radius"),
        *_texts(reason=200),
        sa.Column("needed", sa.Integer(), nullable=False),
        *_texts(state=16, outcome=300),
        *_numbers("created_ms", "expires_ms"),
        _number("decided_ms", nullable=True),
        _refers("proposal", ["tenant", "proposer"], "person", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_proposal")),
    )
    op.create_table(
        "approval",
        *_texts(tenant=63, proposal=36, person=63),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        *_texts(sha256=64, reason=200),
        _number("given_ms"),
        *_approval_keys(),
    )
    op.create_table(
        "break_glass",
        *_texts(tenant=63, proposal=36, person=63, reason=200),
        _number("broken_ms"),
        *_texts(acknowledged_by=63),
        _number("acknowledged_ms", nullable=True),
        _refers("break_glass", ["tenant", "person"], "person", ["tenant", "id"]),
        _refers("break_glass", ["tenant", "proposal"], "proposal", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "proposal", name=op.f("pk_break_glass")),
    )
    op.create_table(
        "approval_rule",
        *_texts(tenant=63, site=63, action=64),
        sa.Column("approvals", sa.Integer(), nullable=False),
        _refers("approval_rule", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "site", "action", name=op.f("pk_approval_rule")),
    )
    op.create_table(
        "escalation_budget",
        *_texts(tenant=63),
        sa.Column("device_per_hour", sa.Float(), nullable=False),
        sa.Column("tenant_per_hour", sa.Float(), nullable=False),
        _number("changed_ms"),
        _refers("escalation_budget", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_escalation_budget")),
    )


def _audit() -> None:
    op.create_table(
        "audit_record",
        *_texts(tenant=63),
        *_numbers("number", "time_ms"),
        *_texts(person=63, role=16, source=64, action=64, subject=200, before_sha256=64, after_sha256=64),
        _long("detail"),
        *_texts(previous_sha256=64, sha256=64),
        _refers("audit_record", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "number", name=op.f("pk_audit_record")),
    )
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def _as_before() -> None:
    op.create_table(
        "proposal",
        *_texts(tenant=63, id=36, proposer=63),
        _long("change"),
        *_texts(state=16),
        _number("created_ms"),
        _refers("proposal", ["tenant", "proposer"], "person", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_proposal")),
    )
    op.create_table(
        "approval",
        *_texts(tenant=63, proposal=36, person=63),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        *_texts(reason=200),
        _number("given_ms"),
        *_approval_keys(),
    )
    op.create_table(
        "enrollment",
        *_texts(tenant=63, secret_sha256=64, device=63),
        *_numbers("created_ms", "expires_ms"),
        _number("used_ms", nullable=True),
        _refers("enrollment", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "secret_sha256", name=op.f("pk_enrollment")),
    )
    op.create_table(
        "audit_record",
        *_texts(tenant=63),
        *_numbers("number", "time_ms"),
        *_texts(person=63, action=64, subject=200),
        _long("detail"),
        *_texts(previous_sha256=64, sha256=64),
        _refers("audit_record", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "number", name=op.f("pk_audit_record")),
    )


def _approval_keys() -> tuple[sa.Constraint, ...]:
    return (
        _refers("approval", ["tenant", "person"], "person", ["tenant", "id"]),
        _refers("approval", ["tenant", "proposal"], "proposal", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "proposal", "person", name=op.f("pk_approval")),
    )


def _columns(table: str, *columns: "sa.Column[object]") -> None:
    """Add ``columns`` with a value for the rows of before, and no default for those to come."""
    with op.batch_alter_table(table) as changed:
        for column in columns:
            changed.add_column(column)
    with op.batch_alter_table(table) as changed:
        for column in columns:
            if column.server_default is not None:
                changed.alter_column(column.name, existing_type=column.type, server_default=None)


def _text(name: str, length: int, default: str = "") -> "sa.Column[object]":
    return sa.Column(name, sa.String(length), nullable=False, server_default=default)


def _count(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.Integer(), nullable=False, server_default="0")


def _zero(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def _texts(**lengths: int) -> "list[sa.Column[object]]":
    return [sa.Column(name, sa.String(length), nullable=False) for name, length in lengths.items()]


def _long(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.Text(), nullable=False)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _numbers(*names: str) -> "list[sa.Column[object]]":
    return [_number(name) for name in names]


def _refers(table: str, columns: list[str], other: str, keys: list[str]) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{'_'.join(columns)}")
    return sa.ForeignKeyConstraint(columns, [f"{other}.{key}" for key in keys], name=name)
