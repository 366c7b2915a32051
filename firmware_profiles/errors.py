"""The errors of the firmware profiles, in one family.

::

    ProfileError
    ├── ProfileUnknown   there is no profile of this name
    └── ProfileInvalid   a profile's file does not parse or contradicts itself
"""

# ruff: noqa: N818 - the family ends in Error; its members say what happened


class ProfileError(ValueError):
    """A firmware profile cannot be used; the message says what to do."""


class ProfileUnknown(ProfileError):
    """No profile has this name; the message lists those there are."""


class ProfileInvalid(ProfileError):
    """A profile's file is no TOML, has a key that is wrong, or contradicts itself."""
