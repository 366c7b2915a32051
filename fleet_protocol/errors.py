"""The errors of the protocol, in one family.

::

    ProtocolError
    ├── TopicError      a topic outside the grammar
    ├── MessageError    bytes that are no message of ours
    ├── ManifestError   an artifact manifest that cannot be used
    ├── PolicyError     a policy that does not parse or does not type-check
    ├── TargetError     signed metadata whose description of an artifact cannot be used
    ├── CentralError    a central model's manifest or answer that cannot be used
    ├── CalibrationError  records of decisions that no threshold can be calibrated on
    ├── EnrollmentError   an invitation, or a key or certificate of a device, that cannot be used
    └── VersionError    what a device says of its versions, or a bundle's wish for it, that cannot be read
"""


class ProtocolError(ValueError):
    """Something received does not follow the protocol; the message says what to do about it."""


class TopicError(ProtocolError):
    """A topic that is not in the grammar of :mod:`fleet_protocol.topics`."""


class MessageError(ProtocolError):
    """Bytes that are not a message of this protocol version, or one beyond its limits."""


class ManifestError(ProtocolError):
    """A manifest that does not parse, contradicts itself, or names what is not there."""


class PolicyError(ProtocolError):
    """A policy that does not parse, or whose rules do not type-check against the model."""


class TargetError(ProtocolError):
    """A target of a repository whose description does not parse or is another artifact's."""


class CentralError(ProtocolError):
    """A central model's manifest that does not parse or contradicts itself, or an answer that is none."""


class CalibrationError(ProtocolError):
    """Records of decisions that do not parse, or that no threshold can be calibrated on."""


class EnrollmentError(ProtocolError):
    """An invitation that is none, or a device's key or certificate that does not fit the rest."""


class VersionError(ProtocolError):
    """A version report, or a bundle's request for one, that does not parse or is too long."""
