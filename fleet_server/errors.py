"""The errors of the server, in families.

::

    ServerError
    ├── ConfigError      a setting that cannot be used
    ├── AuthorityError   a key or certificate that cannot be made or used
    │   └── CsrRefused   a certificate request that is not signed as asked
    ├── BrokerError      the broker cannot be started or reached
    ├── StoreError       the database cannot be used
    ├── RegistryError    a device that cannot be added or found
    │   ├── NotFound
    │   └── Conflict
    └── UpdatesError     signed updates that cannot be published or given
        ├── Refused      metadata or an artifact that is not as it has to be
        ├── Stale        not the next version of what is there
        ├── TooLarge
        ├── NoCeremony   no keys were vouched for yet
        └── NoArtifact   no such thing was published
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


class RegistryError(ServerError):
    """A device that cannot be added or found."""


class NotFound(RegistryError):  # noqa: N818 - it is the name people search for
    """No such thing."""


class Conflict(RegistryError):  # noqa: N818
    """It is there already, and different."""


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
