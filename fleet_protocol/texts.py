"""The one catalog of texts that a person reads.

Every sentence shown to a person is written in English inside ``_()`` and looked up here, so that
French and Arabic can follow as gettext catalogs without touching the code. Values are filled in
after the lookup: ``_("no file {path}").format(path=path)``.
"""

import gettext

_translations: gettext.NullTranslations = gettext.NullTranslations()


def use(translations: gettext.NullTranslations) -> None:
    """Make ``translations`` the catalog that every later lookup reads."""
    global _translations  # noqa: PLW0603 - one process speaks one language
    _translations = translations


def _(message: str) -> str:
    """The text for ``message`` in the language in use; ``message`` itself where none is known."""
    return _translations.gettext(message)


def mark(message: str) -> str:
    """``message`` unchanged: marks a constant for the catalog, to be looked up where it is shown."""
    return message
