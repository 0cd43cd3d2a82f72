"""Which nodes a user wants to keep in higher precision, said as patterns of their names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..errors import AtrousError


def kept_by_pattern(
    names: Sequence[str], patterns: Sequence[str], *, kind: str, error: type[AtrousError]
) -> dict[str, str]:
    """Names that match a pattern, each with the reason to keep it: the last pattern that does.

    Args:
        names: of all nodes that could be kept.
        patterns: as of a shell, `node_Conv_9*`.
        kind: what the names are of, for the message.
        error: what to raise.

    Raises:
        AtrousError: as `error`, when a pattern matches nothing.
    """
    found = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            raise error(
                f"no {kind} is called {pattern!r}, so it cannot be kept; {kind}s are called {', '.join(names[:3])} …"
            )
        found.update(dict.fromkeys(matches, f"asked for by {pattern!r}"))
    return found
