"""The errors of the agent, by family; a caller catches the family, a person reads the message.

::

    AgentError
    ├── ConfigError          the configuration cannot be used
    ├── IdentityError        key, certificate or CA cannot be used
    ├── FolderInUse          another agent runs on the same data folder
    ├── SensorError          a sensor gave no good values
    │   ├── SensorTimeout    it does not answer
    │   ├── SensorRefused    it answers with an exception, or with what is no number
    │   └── SensorEnded      a recording is over
    ├── InferenceError       a model cannot answer
    │   ├── RuntimeMissing   none of its runtimes can be imported here
    │   ├── ModelRefused     its files or its golden inputs fail
    │   └── WorkerCrashed    the process that ran it died
    ├── SpoolError           the store for unsent data failed
    │   ├── SpoolUnwritable  no room, or the medium refuses writes
    │   └── SpoolCorrupt     the file is no spool of this version
    ├── LinkError            no session with the broker
    │   ├── LinkDown         it cannot be reached, or the session broke
    │   └── LinkRefused      it, or its certificate check, said no
    ├── RenewalError         the certificate was not renewed
    │   ├── ServerUnreachable  the server does not answer over HTTPS
    │   └── ServerRefused    it does not believe this device
    ├── UpdateError          an update did not come about
    │   ├── UpdateRefused    it must not be accepted; says the class of attack or accident
    │   ├── UpdateUnreachable  the update server did not answer, or a bundle cannot be read
    │   ├── UpdateUnfit      it does not fit what else is installed or configured here
    │   ├── UpdateFailed     it was tried, and does not work here
    │   ├── UpdaterRefused   the board's own updater says no
    │   └── UpdateBroken     the device's own record of updates cannot be read or written
    ├── EnrollmentError      the device was not given an identity
    │   ├── EnrollmentRefused      the server said no, and why
    │   ├── EnrollmentUnreachable  it did not answer; the same command may be tried again
    │   ├── EnrollmentUntrusted    it is not the server that is meant, or somebody stands between
    │   └── EnrollmentWaiting      nobody has decided yet; the same command goes on waiting
    └── LocalError           what somebody on site asked for cannot be done
        ├── BadParameter     a parameter is missing or of the wrong kind
        └── NotAvailable     this agent has no such part

``code`` is the health code that a failure of the family raises, where there is one.
"""

# ruff: noqa: N818 - the families end in Error; their members say what happened

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from edge_agent.sensors.base import Sample
    from fleet_protocol.targets import Refusal


class AgentError(Exception):
    """Something that the agent foresees; the message says what to do."""

    code: ClassVar[str] = ""


class ConfigError(AgentError):
    """The configuration does not parse or contradicts itself."""


class IdentityError(AgentError):
    """Key, certificate or CA are missing, unreadable, or do not belong together."""


class FolderInUse(AgentError):
    """Another agent holds the data folder."""


class SensorError(AgentError):
    """A poll that failed, wholly or in part.

    ``samples`` are what the poll brought all the same; where it is empty, every metric of the
    sensor is bad.
    """

    def __init__(self, message: str, samples: "Sequence[Sample]" = ()) -> None:
        super().__init__(message)
        self.samples = tuple(samples)


class SensorTimeout(SensorError):
    """No answer in time."""

    code = "sensor.timeout"


class SensorRefused(SensorError):
    """The sensor answered with an exception, or with what cannot be a value."""

    code = "sensor.refused"


class SensorEnded(SensorError):
    """A recording has no more samples."""

    code = "sensor.ended"


class InferenceError(AgentError):
    """A model cannot answer."""


class RuntimeMissing(InferenceError):
    """No runtime that the model allows can be imported here."""

    code = "model.missing_runtime"


class ModelRefused(InferenceError):
    """The model's files are missing, changed or contradictory, or its golden inputs fail."""

    code = "model.refused"


class WorkerCrashed(InferenceError):
    """The process that ran the model died while it was asked."""

    code = "model.crashed"


class SpoolError(AgentError):
    """The store for unsent data failed."""


class SpoolUnwritable(SpoolError):
    """There is no room, or the medium refuses writes; what is stored stays readable."""

    code = "spool.disk_full"


class SpoolCorrupt(SpoolError):
    """The file is no database, is malformed, or has another version's schema."""

    code = "spool.quarantined"


class LinkError(AgentError):
    """There is no session with the broker."""


class LinkDown(LinkError):
    """The broker cannot be reached, or the session broke; it is tried again."""

    code = "link.down"


class LinkRefused(LinkError):
    """The broker, or one of the two certificate checks, said no; it is tried again, seldom."""

    code = "link.refused"


class RenewalError(AgentError):
    """The certificate was not renewed; the one before stays until it ends."""

    code = "certificate.ends"


class ServerUnreachable(RenewalError):
    """The server does not answer over HTTPS, or in a way that cannot be read; it is tried again."""


class ServerRefused(RenewalError):
    """The server says no to what this device asks over HTTPS; the message is its own."""


class UpdateError(AgentError):
    """An update did not come about; what ran before goes on running."""


class UpdateRefused(UpdateError):
    """What was offered must not be accepted.

    ``scope`` says of what: a repository (``image``, ``director``) or an artifact's path.
    """

    code = "update.refused"

    def __init__(self, refusal: "Refusal", scope: str, detail: str) -> None:
        super().__init__(f"{scope}: {detail}")
        self.refusal = refusal
        self.scope = scope
        self.detail = detail


class UpdateUnreachable(UpdateError):
    """The update server did not answer, or a bundle cannot be read; it is tried again."""

    code = "update.unreachable"


class UpdateUnfit(UpdateError):
    """The artifact does not fit what else is installed or configured here; that is no fault of its own."""

    code = "update.failed"


class UpdateFailed(UpdateError):
    """It was tried here and does not work; it is remembered."""

    code = "update.failed"


class UpdaterRefused(UpdateError):
    """The board's own updater says no to an image; the message holds its words."""

    code = "update.failed"


class UpdateBroken(UpdateError):
    """The device's own record of updates cannot be read or written."""

    code = "update.failed"


class EnrollmentError(AgentError):
    """The device was not given an identity; what it has is as before, and the key is kept."""


class EnrollmentRefused(EnrollmentError):
    """The server does not let this device in; the message says why and what to do."""


class EnrollmentUnreachable(EnrollmentError):
    """The server did not answer."""


class EnrollmentUntrusted(EnrollmentError):
    """The server does not prove to be the one that is meant; nothing secret was sent to it."""


class EnrollmentWaiting(EnrollmentError):
    """Nobody has decided yet whether the device is let in."""


class LocalError(AgentError):
    """What was asked for over the local socket cannot be done."""


class BadParameter(LocalError):
    """A parameter is missing or of the wrong kind."""


class NotAvailable(LocalError):
    """This agent has no such part."""
