"""The whole data model, on SQLite and PostgreSQL."""

import sqlalchemy as sa
from alembic import op

from fleet_server.database.partitions import create_default

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _owners_and_devices()
    _people()
    _flows()
    _records()
    _updates()
    _decisions()
    _escalation()
    _service()
    if op.get_bind().dialect.name == "postgresql":
        for table in ("reading", "inference"):
            create_default(op.get_bind(), table)


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)


def _owners_and_devices() -> None:
    op.create_table(
        "tenant",
        _text("id", 63),
        _text("name", 200),
        _number("created_ms"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
    )
    op.create_table(
        "site",
        _text("tenant", 63),
        _text("id", 63),
        _text("name", 200),
        sa.Column("latitude", sa.Float(), nullable=True),
        sa.Column("longitude", sa.Float(), nullable=True),
        _text("time_zone", 64),
        _refers("site", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_site")),
    )
    op.create_table(
        "device",
        _text("tenant", 63),
        _text("id", 63),
        sa.Column("site", sa.String(length=63), nullable=True),
        _text("profile", 64),
        _number("created_ms"),
        _refers("device", ["tenant", "site"], "site", ["tenant", "id"]),
        _refers("device", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_device")),
        sa.UniqueConstraint("id", name=op.f("uq_device_id")),
    )
    op.create_table(
        "hardware_unit",
        _text("tenant", 63),
        _text("serial", 128),
        _text("device", 63),
        _number("since_ms"),
        _number("until_ms", nullable=True),
        _refers("hardware_unit", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "serial", "device", "since_ms", name=op.f("pk_hardware_unit")),
    )
    op.create_table(
        "certificate",
        _text("tenant", 63),
        _text("serial", 40),
        _text("device", 63),
        _text("sha256", 64),
        sa.Column("pem", sa.Text(), nullable=False),
        *_numbers("not_before_ms", "not_after_ms"),
        _number("revoked_ms", nullable=True),
        _refers("certificate", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "serial", name=op.f("pk_certificate")),
    )
    op.create_index(op.f("ix_certificate_device"), "certificate", ["device"])
    op.create_table(
        "enrollment",
        _text("tenant", 63),
        _text("secret_sha256", 64),
        _text("device", 63),
        *_numbers("created_ms", "expires_ms"),
        _number("used_ms", nullable=True),
        _refers("enrollment", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "secret_sha256", name=op.f("pk_enrollment")),
    )
    op.create_table(
        "twin",
        _text("tenant", 63),
        _text("device", 63),
        _text("half", 16),
        *_numbers("version", "changed_ms"),
        sa.Column("document", sa.Text(), nullable=False),
        _text("reason", 200),
        _refers("twin", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", "half", name=op.f("pk_twin")),
    )


def _people() -> None:
    op.create_table(
        "person",
        _text("tenant", 63),
        _text("id", 63),
        _text("name", 200),
        _number("created_ms"),
        _number("disabled_ms", nullable=True),
        _refers("person", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_person")),
    )
    op.create_table(
        "token",
        _text("tenant", 63),
        _text("sha256", 64),
        _text("person", 63),
        _text("name", 64),
        _number("created_ms"),
        _number("expires_ms", nullable=True),
        _number("revoked_ms", nullable=True),
        _refers("token", ["tenant", "person"], "person", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "sha256", name=op.f("pk_token")),
    )
    op.create_table(
        "role",
        _text("tenant", 63),
        _text("person", 63),
        _text("role", 16),
        _text("site", 63),
        _text("tag", 63),
        _refers("role", ["tenant", "person"], "person", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "person", "role", "site", "tag", name=op.f("pk_role")),
    )
    op.create_table(
        "audit_record",
        _text("tenant", 63),
        *_numbers("number", "time_ms"),
        _text("person", 63),
        _text("action", 64),
        _text("subject", 200),
        sa.Column("detail", sa.Text(), nullable=False),
        _text("previous_sha256", 64),
        _text("sha256", 64),
        _refers("audit_record", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "number", name=op.f("pk_audit_record")),
    )


def _flows() -> None:
    op.create_table(
        "metric",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("tenant", 63),
        _text("device", 63),
        _text("name", 64),
        _text("unit", 200),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        _refers("metric", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metric")),
        sa.UniqueConstraint(
            "tenant", "device", "name", "unit", "kind", name=op.f("uq_metric_tenant_device_name_unit_kind")
        ),
    )
    op.create_table(
        "metric_binding",
        _text("tenant", 63),
        _text("device", 63),
        _text("epoch", 16),
        sa.Column("number", sa.Integer(), nullable=False),
        _number("metric"),
        _refers("metric_binding", ["metric"], "metric", ["id"]),
        _refers("metric_binding", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", "epoch", "number", name=op.f("pk_metric_binding")),
    )
    op.create_table(
        "ingest_cursor",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("tenant", 63),
        _text("device", 63),
        _text("epoch", 16),
        _text("stream", 16),
        *_numbers("contiguous", "moved_ms", "readings", "inferences", "events"),
        _refers("ingest_cursor", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ingest_cursor")),
        sa.UniqueConstraint(
            "tenant", "device", "epoch", "stream", name=op.f("uq_ingest_cursor_tenant_device_epoch_stream")
        ),
    )
    op.create_table(
        "batch",
        _text("tenant", 63),
        *_numbers("cursor", "seq", "received_ms", "stored_ms"),
        sa.PrimaryKeyConstraint("cursor", "seq", name=op.f("pk_batch")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pending_batch",
        _text("tenant", 63),
        *_numbers("cursor", "first", "last"),
        _refers("pending_batch", ["cursor"], "ingest_cursor", ["id"]),
        sa.PrimaryKeyConstraint("cursor", "first", name=op.f("pk_pending_batch")),
    )
    op.create_table(
        "gap",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("tenant", 63),
        _text("device", 63),
        *_numbers("cursor", "first", "last", "batches", "records"),
        _text("reason", 64),
        *_numbers("oldest_wall_ms", "newest_wall_ms", "received_ms"),
        _refers("gap", ["cursor"], "ingest_cursor", ["id"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gap")),
    )
    op.create_index(op.f("ix_gap_cursor"), "gap", ["cursor"])
    op.create_index(op.f("ix_gap_tenant_device_received_ms"), "gap", ["tenant", "device", "received_ms"])
    op.create_table(
        "presence",
        _text("tenant", 63),
        _text("device", 63),
        _number("heard_ms"),
        _refers("presence", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", name=op.f("pk_presence")),
    )


def _records() -> None:
    op.create_table(
        "event",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("tenant", 63),
        _text("device", 63),
        _number("time_ms"),
        _text("name", 64),
        sa.Column("severity", sa.SmallInteger(), nullable=False),
        _text("text", 200),
        _text("source", 200),
        sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("clock_state", sa.SmallInteger(), nullable=False),
        *_numbers("cursor", "seq"),
        _refers("event", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index(op.f("ix_event_tenant_device_time_ms"), "event", ["tenant", "device", "time_ms"])
    op.create_index(op.f("ix_event_tenant_time_ms"), "event", ["tenant", "time_ms"])
    op.create_table(
        "reading",
        *_numbers("metric", "time_ms", "cursor", "seq"),
        sa.Column("clock_state", sa.SmallInteger(), nullable=False),
        sa.Column("quality", sa.SmallInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        postgresql_partition_by="RANGE (time_ms)",
    )
    op.create_index("ix_reading_metric_time_ms", "reading", ["metric", "time_ms"])
    op.create_table(
        "inference",
        _text("tenant", 63),
        _text("device", 63),
        *_numbers("time_ms", "cursor", "seq"),
        sa.Column("clock_state", sa.SmallInteger(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        _text("model", 64),
        _text("version", 64),
        _text("label", 200),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        _number("latency_us"),
        sa.Column("uncertain", sa.Boolean(), nullable=False),
        postgresql_partition_by="RANGE (time_ms)",
    )
    op.create_index("ix_inference_tenant_device_time_ms", "inference", ["tenant", "device", "time_ms"])


def _updates() -> None:
    op.create_table(
        "artifact",
        _text("tenant", 63),
        _text("sha256", 64),
        _text("kind", 16),
        _text("name", 64),
        _text("version", 64),
        *_numbers("release", "size"),
        sa.Column("manifest", sa.Text(), nullable=False),
        _number("created_ms"),
        _refers("artifact", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "sha256", name=op.f("pk_artifact")),
        sa.UniqueConstraint(
            "tenant", "kind", "name", "release", name=op.f("uq_artifact_tenant_kind_name_release")
        ),
    )
    op.create_table(
        "assignment",
        _text("tenant", 63),
        _text("device", 63),
        _text("kind", 16),
        _text("name", 64),
        _text("artifact", 64),
        _number("assigned_ms"),
        _refers("assignment", ["tenant", "artifact"], "artifact", ["tenant", "sha256"]),
        _refers("assignment", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", "kind", "name", name=op.f("pk_assignment")),
    )
    op.create_table(
        "device_group",
        _text("tenant", 63),
        _text("name", 63),
        sa.Column("filter", sa.Text(), nullable=False),
        _number("created_ms"),
        _refers("device_group", ["tenant"], "tenant", ["id"]),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_device_group")),
    )
    op.create_table(
        "rollout",
        _text("tenant", 63),
        _text("id", 36),
        _text("device_group", 63),
        _text("artifact", 64),
        _text("state", 16),
        sa.Column("rules", sa.Text(), nullable=False),
        _number("created_ms"),
        _refers("rollout", ["tenant", "artifact"], "artifact", ["tenant", "sha256"]),
        _refers("rollout", ["tenant", "device_group"], "device_group", ["tenant", "name"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_rollout")),
    )
    op.create_table(
        "wave",
        _text("tenant", 63),
        _text("rollout", 36),
        sa.Column("number", sa.Integer(), nullable=False),
        _text("state", 16),
        sa.Column("devices", sa.Text(), nullable=False),
        _number("started_ms", nullable=True),
        _number("ended_ms", nullable=True),
        _refers("wave", ["tenant", "rollout"], "rollout", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "rollout", "number", name=op.f("pk_wave")),
    )


def _decisions() -> None:
    op.create_table(
        "proposal",
        _text("tenant", 63),
        _text("id", 36),
        _text("proposer", 63),
        sa.Column("change", sa.Text(), nullable=False),
        _text("state", 16),
        _number("created_ms"),
        _refers("proposal", ["tenant", "proposer"], "person", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_proposal")),
    )
    op.create_table(
        "approval",
        _text("tenant", 63),
        _text("proposal", 36),
        _text("person", 63),
        sa.Column("agrees", sa.Boolean(), nullable=False),
        _text("reason", 200),
        _number("given_ms"),
        _refers("approval", ["tenant", "person"], "person", ["tenant", "id"]),
        _refers("approval", ["tenant", "proposal"], "proposal", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "proposal", "person", name=op.f("pk_approval")),
    )


def _escalation() -> None:
    op.create_table(
        "request",
        _text("tenant", 63),
        _text("device", 63),
        _text("id", 64),
        _text("kind", 64),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        *_numbers("deadline_ms", "received_ms"),
        _refers("request", ["tenant", "device"], "device", ["tenant", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", "id", name=op.f("pk_request")),
    )
    op.create_table(
        "answer",
        _text("tenant", 63),
        _text("device", 63),
        _text("request", 64),
        _text("state", 16),
        _text("answered_by", 200),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        _number("answered_ms"),
        _refers("answer", ["tenant", "device", "request"], "request", ["tenant", "device", "id"]),
        sa.PrimaryKeyConstraint("tenant", "device", "request", name=op.f("pk_answer")),
    )
    op.create_table(
        "job",
        _text("tenant", 63),
        _text("id", 64),
        _text("device", 63),
        _text("request", 64),
        _text("state", 16),
        sa.Column("detail", sa.Text(), nullable=False),
        _number("created_ms"),
        _number("ended_ms", nullable=True),
        _refers("job", ["tenant", "device", "request"], "request", ["tenant", "device", "id"]),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_job")),
    )


def _service() -> None:
    op.create_table(
        "service",
        _text("name", 63),
        *_numbers("started_ms", "beat_ms"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_service")),
    )
    op.create_table(
        "server_health",
        _text("code", 64),
        _number("since_ms"),
        _number("cleared_ms", nullable=True),
        _text("detail", 200),
        _number("count"),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_server_health")),
    )
    op.create_table(
        "refusal_count",
        _text("tenant", 63),
        _text("device", 63),
        *_numbers("count", "last_ms"),
        _text("last_reason", 300),
        sa.PrimaryKeyConstraint("tenant", "device", name=op.f("pk_refusal_count")),
    )
    op.create_table(
        "refused_message",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        _text("tenant", 63),
        _text("device", 63),
        _text("topic", 200),
        _number("received_ms"),
        _text("reason", 300),
        _number("size"),
        sa.Column("head", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refused_message")),
    )


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _numbers(*names: str) -> list[sa.Column[int]]:
    return [_number(name) for name in names]


def _refers(table: str, columns: list[str], to: str, keys: list[str]) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{'_'.join(columns)}")
    return sa.ForeignKeyConstraint(columns, [f"{to}.{key}" for key in keys], name=name)


# fmt: off
_TABLES = (
    "tenant", "site", "device", "hardware_unit", "certificate", "enrollment", "twin", "person",
    "token", "role", "audit_record", "metric", "metric_binding", "ingest_cursor", "batch",
    "pending_batch", "gap", "presence", "event", "reading", "inference", "artifact", "assignment",
    "device_group", "rollout", "wave", "proposal", "approval", "request", "answer", "job",
    "service", "server_health", "refusal_count", "refused_message",
)
# fmt: on
