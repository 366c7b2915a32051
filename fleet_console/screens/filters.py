"""The filter that ``/`` asks for. Pure.

Words, all of which must hold: a regular expression anywhere in the line, whatever the case;
``!word`` where it must not match; ``~word`` where its letters come in this order. What is no regular
expression is looked for as it stands.
"""

import re
from collections.abc import Callable
from functools import partial

Holds = Callable[[str], bool]


def compiled(text: str) -> Holds:
    """Whether a line passes the filter ``text``; an empty one passes everything."""
    terms = [_term(word) for word in text.split()]
    return lambda line: all(term(line) for term in terms)


def _term(word: str) -> Holds:
    match word[:1], word[1:]:
        case "!", rest if rest:
            return partial(_not, _term(rest))
        case "~", rest if rest:
            return partial(_in_order, rest.casefold())
        case _:
            return partial(_found, _pattern(word))


def _pattern(word: str) -> re.Pattern[str]:
    try:
        return re.compile(word, re.IGNORECASE)
    except re.error:
        return re.compile(re.escape(word), re.IGNORECASE)


def _not(term: Holds, line: str) -> bool:
    return not term(line)


def _found(pattern: re.Pattern[str], line: str) -> bool:
    return pattern.search(line) is not None


def _in_order(letters: str, line: str) -> bool:
    rest = iter(line.casefold())
    return all(letter in rest for letter in letters)
