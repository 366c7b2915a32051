"""The errors of the server, in families.

::

    ServerError
    ├── ConfigError      a setting that cannot be used
    ├── AuthorityError   a key or certificate that cannot be made or used
    │   └── CsrRefused   a certificate request that is not signed as asked
    ├── BrokerError      the broker cannot be started or reached
    ├── StoreError       the database cannot be used
    ├── AuditError       the record of changes cannot be signed, read or copied
    │   └── AuditBroken      it is not what was signed before
    ├── BackendError     a central model gave no answer
    │   ├── BackendDown      it cannot be reached, or not be loaded
    │   └── BackendLate      it did not answer before the deadline
    ├── RegistryError    a device that cannot be added or found
    │   ├── NotFound
    │   ├── Conflict
    │   ├── RevocationConflict   it is not in the state that is to be changed
    │   ├── ManyRevocations      more than one person puts out alone
    │   ├── EnrollmentRefused    it asks for what it shall not have
    │   └── LimitReached         as many as there may be
    ├── DeviceRefused    a device that is not given what it asks for over HTTPS
    ├── UpdatesError     signed updates that cannot be published or given
    │   ├── Refused      metadata or an artifact that is not as it has to be
    │   ├── Stale        not the next version of what is there
    │   ├── TooLarge
    │   ├── NoCeremony   no keys were vouched for yet
    │   ├── NoArtifact   no such thing was published
    │   └── Unattested   what is said to be a device's signed word, and is none that counts
    ├── AccessError      an account, a token or a login that cannot be had
    │   ├── PersonNotFound   no such person or token
    │   ├── AccessConflict   it is there already, or must stay
    │   ├── PasswordRefused  a password that cannot be taken
    │   ├── TooBroad         more than whoever asks has themselves
    │   ├── LoginRefused     nobody was recognized
    │   ├── NoIssuer         OIDC is not set up
    │   └── IssuerDown       the OIDC issuer cannot be asked
    ├── RolloutError     a move of the fleet that cannot be made
    │   ├── FilterError      a group's filter that cannot be read
    │   ├── RulesError       waves or limits that make no sense
    │   ├── RolloutNotFound  no such group, artifact or rollout
    │   └── RolloutConflict  the rollout's state, or another rollout, forbids it
    └── ApprovalError    a change that cannot be proposed or decided on
        ├── BadChange        it is not as its action takes it, or changes nothing
        ├── NoProposal       no such proposal
        ├── ProposalConflict its state, or what was agreed to, forbids it
        └── NotYours         another person has to do this
"""


class ServerError(Exception):
    """Something on the server cannot go on; the message says what to do about it."""


class ConfigError(ServerError):
    """A setting that cannot be used."""


class AuthorityError(ServerError):
    """A key or certificate that cannot be made or used."""


class CsrRefused(AuthorityError):  # noqa: N818 - what happened to it
    """A certificate request that is malformed, or asks for what its sender shall not have."""


class BrokerError(ServerError):
    """The broker cannot be started or reached."""


class StoreError(ServerError):
    """The database cannot be used."""


class AuditError(ServerError):
    """The record of changes, its key or its checkpoints cannot be used."""


class AuditBroken(AuditError):  # noqa: N818 - what happened to it
    """The record of changes, or its checkpoints, are not what this server has signed before."""


class BackendError(ServerError):
    """A central model gave no answer, or none that can be used."""


class BackendDown(BackendError):  # noqa: N818 - what happened to it
    """The backend cannot be reached, or its model cannot be loaded."""


class BackendLate(BackendError):  # noqa: N818
    """There was no answer before the deadline."""


class RegistryError(ServerError):
    """A device that cannot be added or found."""


class NotFound(RegistryError):  # noqa: N818 - it is the name people search for
    """No such thing."""


class Conflict(RegistryError):  # noqa: N818
    """It is there already, and different."""


class RevocationConflict(RegistryError):  # noqa: N818
    """What a device may prove with is not in the state that is to be changed."""


class ManyRevocations(RegistryError):  # noqa: N818
    """Somebody has put out as many devices as they may without anybody else."""


class LimitReached(RegistryError):  # noqa: N818
    """There are as many as there may be."""


class EnrollmentRefused(RegistryError):  # noqa: N818 - what happened to it
    """A device that is not let in; ``code`` and ``next_step`` go to whoever stands there."""

    def __init__(self, code: str, message: str, next_step: str) -> None:
        super().__init__(message)
        self.code = code
        self.next_step = next_step


class DeviceRefused(ServerError):  # noqa: N818 - what happened to it
    """A device is not given what it asks for over HTTPS.

    ``status`` is HTTP's, ``code`` is OAuth's (RFC 6749, RFC 6750) where it has one; the message says what
    is wrong, and ``next_step`` what to do.
    """

    def __init__(self, status: int, code: str, message: str, next_step: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.next_step = next_step


class UpdatesError(ServerError):
    """Signed updates cannot be published or given."""


class Refused(UpdatesError):  # noqa: N818 - what happened to it
    """Metadata or an artifact that is not as it has to be."""


class Stale(UpdatesError):  # noqa: N818
    """It is not the next version of what is there, or differs from what has its number."""


class TooLarge(UpdatesError):  # noqa: N818
    """More bytes than there may be."""


class NoCeremony(UpdatesError):  # noqa: N818
    """No key ceremony has vouched for this server's keys yet."""


class NoArtifact(UpdatesError):  # noqa: N818
    """No such artifact was published."""


class Unattested(UpdatesError):  # noqa: N818
    """A version report or receipt that no device of the fleet has signed, or that does not count."""


class AccessError(ServerError):
    """An account, a token or a login that cannot be had."""


class PersonNotFound(AccessError):  # noqa: N818
    """No such person, or no such token of theirs."""


class AccessConflict(AccessError):  # noqa: N818
    """It is there already, or it has to stay."""


class PasswordRefused(AccessError):  # noqa: N818
    """A password that cannot be taken."""


class TooBroad(AccessError):  # noqa: N818
    """It would give more than whoever asks for it has."""


class LoginRefused(AccessError):  # noqa: N818
    """Nobody was recognized; the message does not say whether such a person exists."""


class NoIssuer(AccessError):  # noqa: N818
    """Login by OIDC is not set up."""


class IssuerDown(AccessError):  # noqa: N818
    """The OIDC issuer cannot be asked, or says what cannot be used."""


class RolloutError(ServerError):
    """A move of the fleet that cannot be made."""


class FilterError(RolloutError):
    """A group's filter that cannot be read; the message says where."""


class RulesError(RolloutError):
    """Waves or limits that make no sense."""


class RolloutNotFound(RolloutError):  # noqa: N818
    """No such group, artifact or rollout."""


class RolloutConflict(RolloutError):  # noqa: N818
    """The rollout's own state, or another rollout, forbids it."""


class ApprovalError(ServerError):
    """A change cannot be proposed or decided on."""


class BadChange(ApprovalError):  # noqa: N818 - what it is
    """It is not as its action takes it, or it would change nothing."""


class NoProposal(ApprovalError):  # noqa: N818
    """No such proposal."""


class ProposalConflict(ApprovalError):  # noqa: N818
    """Its state, or that other words were agreed to, forbids it."""


class NotYours(ApprovalError):  # noqa: N818
    """Another person has to do this: one who did not ask for it, or who has the right everywhere."""
