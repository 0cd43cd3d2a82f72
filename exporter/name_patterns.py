"""Shell patterns of node names, for nodes to keep in higher precision."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..errors import AtrousError


def kept_by_pattern(
    names: Sequence[str], patterns: Sequence[str], *, kind: str, error: type[AtrousError]
) -> dict[str, str]:
    """Map each name that matches a pattern to the reason to keep it, which names the last matching pattern.

    Args:
        names: names of all nodes that could be kept.
        patterns: shell patterns, e.g. `node_Conv_9*`.
        kind: kind of the named objects, for the message.
        error: exception type to raise.

    Raises:
        AtrousError: of type `error`, if a pattern matches nothing.
    """
    found = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise error(f"no {kind} matches {pattern!r}; {kind} names are {', '.join(names[:3])} …")
        found.update(dict.fromkeys(matches, f"requested by {pattern!r}"))
    return found
