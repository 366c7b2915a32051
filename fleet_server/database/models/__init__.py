"""Every table of the server, by journey; importing this package fills ``metadata``.

The tenant is part of every key. Tables that are read in the order of their making carry a
surrogate number as primary key, and the tenant in each index beside it.
"""

from fleet_server.database.models.access import (
    Approval,
    ApprovalRule,
    AuditRecord,
    BreakGlass,
    Person,
    Proposal,
    Role,
    Token,
)
from fleet_server.database.models.base import Model
from fleet_server.database.models.devices import (
    Certificate,
    Claim,
    Device,
    DeviceTag,
    Enrollment,
    FactoryBatch,
    HardwareUnit,
    Hold,
    Site,
    Tenant,
    Twin,
    TwinHalf,
)
from fleet_server.database.models.escalation import Answer, EscalationBudget, Job, Request
from fleet_server.database.models.service import RefusalCount, RefusedMessage, ServerHealth, Service
from fleet_server.database.models.telemetry import (
    Batch,
    Event,
    Gap,
    IngestCursor,
    Metric,
    MetricBinding,
    PendingBatch,
    Presence,
    inference,
    reading,
)
from fleet_server.database.models.updates import (
    Artifact,
    Assignment,
    DeviceGroup,
    Directive,
    Rollout,
    RolloutMember,
    SentHint,
    Wave,
)
from fleet_server.database.models.versions import Receipt, VersionStatement

metadata = Model.metadata

__all__ = [
    "Answer",
    "Approval",
    "ApprovalRule",
    "Artifact",
    "Assignment",
    "AuditRecord",
    "Batch",
    "BreakGlass",
    "Certificate",
    "Claim",
    "Device",
    "DeviceGroup",
    "DeviceTag",
    "Directive",
    "Enrollment",
    "EscalationBudget",
    "Event",
    "FactoryBatch",
    "Gap",
    "HardwareUnit",
    "Hold",
    "IngestCursor",
    "Job",
    "Metric",
    "MetricBinding",
    "Model",
    "PendingBatch",
    "Person",
    "Presence",
    "Proposal",
    "Receipt",
    "RefusalCount",
    "RefusedMessage",
    "Request",
    "Role",
    "Rollout",
    "RolloutMember",
    "SentHint",
    "ServerHealth",
    "Service",
    "Site",
    "Tenant",
    "Token",
    "Twin",
    "TwinHalf",
    "VersionStatement",
    "Wave",
    "inference",
    "metadata",
    "reading",
]
