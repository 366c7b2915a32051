"""Leaves out of a document the fields that another version has added, at every depth. Pure.

What the network brings is refused for a field that nobody knows; what a later version of this agent has
written down on this device must not be lost for one, when the version before runs again.
"""

from typing import Any

from msgspec import inspect


def without_unknown(content: Any, kind: Any) -> Any:
    """``content``, as decoded from JSON, without the fields that ``kind`` does not have."""
    return _known(content, inspect.type_info(kind))


def _known(content: Any, kind: inspect.Type) -> Any:
    match kind:
        case inspect.StructType(fields=fields) | inspect.DataclassType(fields=fields) if isinstance(
            content, dict
        ):
            kinds = {field.encode_name: field.type for field in fields}
            return {name: _known(each, kinds[name]) for name, each in content.items() if name in kinds}
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item) if isinstance(
            content, list
        ):
            return [_known(each, item) for each in content]
        case inspect.UnionType(types=types) if content is not None:
            one = next((each for each in types if not isinstance(each, inspect.NoneType)), None)
            return content if one is None else _known(content, one)
        case _:
            return content
