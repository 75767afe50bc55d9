"""How much a JSON document may hold, checked on its bytes before any object is built."""

import re
from typing import Final

from sphereid.api.problems import Problem

MOST_VALUES: Final = 10_000
"""Items and members of all arrays and objects together. Images count as one value, whatever their size."""

MOST_NESTING: Final = 64
"""Arrays and objects inside each other."""

_STRING_OR_MARK: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[,\[{\]}]', re.DOTALL)


def check_json(body: bytes) -> None:
    """Raises Problem where a document has more values (413) or is nested deeper (422) than any request needs.

    Whether the bytes are JSON at all is left to the parser. Most documents pass by their number of commas and
    brackets; of others the strings are passed over, and the look ends with the first value too many.
    """
    opened = body.count(b"[") + body.count(b"{")
    if body.count(b",") + opened <= MOST_VALUES and opened <= MOST_NESTING:
        return
    values = depth = 0
    for match in _STRING_OR_MARK.finditer(body):
        mark = body[match.start()]
        if mark in b"]}":
            depth -= 1
        elif mark in b"[{,":
            values += 1
            depth += mark != ord(",")
            if values > MOST_VALUES:
                raise Problem(
                    "too_many_values", f"the document may hold at most {MOST_VALUES:,} items and members"
                )
            if depth > MOST_NESTING:
                raise Problem("invalid_request", f"the document may be nested at most {MOST_NESTING} deep")
