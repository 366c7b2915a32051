"""The errors of signing, in one family.

::

    SigningError
    ├── KeyFileError     a key file that cannot be read, opened or written
    ├── ModuleKeyError   a key in a security module that cannot be used
    ├── MetadataError    metadata that does not parse, or is not signed by enough of the right keys
    ├── ArtifactError    a model or policy that cannot be published as it is
    ├── ReleaseError     a release that would not grow
    └── StaleError       metadata that is not the next version of what is there
"""


class SigningError(Exception):
    """Something cannot be signed or published; the message says what to do about it."""


class KeyFileError(SigningError):
    """A key file that cannot be read, opened with this passphrase, or written."""


class ModuleKeyError(SigningError):
    """A key in a security module that is missing, or does not answer as it should."""


class MetadataError(SigningError):
    """Metadata that does not parse, or is not signed by enough of the keys that count."""


class ArtifactError(SigningError):
    """A model folder or a policy that cannot be published as it is."""


class ReleaseError(SigningError):
    """A release that is not above what was published under the same name."""


class StaleError(SigningError):
    """Metadata that is not the next version of what is there, or another one of the same version."""
