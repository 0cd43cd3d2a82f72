"""Shell patterns of the names of nodes and their modules, for nodes to keep in higher precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ..errors import AtrousError
from .module_names import title


def kept_by_pattern(
    names: Sequence[str], patterns: Sequence[str], *, modules: Mapping[str, str], kind: str, error: type[AtrousError]
) -> dict[str, str]:
    """Map each name that matches a pattern to the reason to keep it, which names the last matching pattern.

    Args:
        names: names of all nodes that could be kept.
        patterns: shell patterns of names or paths of modules, e.g. `backbone.layer3.*`, `node_Conv_9*`.
        modules: node → path of its PyTorch module, where it is known.
        kind: kind of the named objects, for the message.
        error: exception type to raise.

    Raises:
        AtrousError: of type `error`, if a pattern matches nothing.
    """
    found = {}
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(modules.get(name, ""), pattern)]
        if not matches:
            listed = ", ".join(title(name, modules.get(name)) for name in names[:3])
            raise error(f"no {kind} matches {pattern!r}; {kind} names are {listed} …")
        found.update(dict.fromkeys(matches, f"requested by {pattern!r}"))
    return found
