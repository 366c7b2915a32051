"""The errors of the server, in families.

::

    ServerError
    ├── ConfigError      a setting that cannot be used
    ├── AuthorityError   a key or certificate that cannot be made or used
    │   └── CsrRefused   a certificate request that is not signed as asked
    ├── BrokerError      the broker cannot be started or reached
    ├── StoreError       the database cannot be used
    ├── BackendError     a central model gave no answer
    │   ├── BackendDown      it cannot be reached, or not be loaded
    │   └── BackendLate      it did not answer before the deadline
    └── RegistryError    a device that cannot be added or found
        ├── NotFound
        └── Conflict
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
