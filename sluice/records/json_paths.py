"""JSON paths as DuckDB reads them: which one a column has, and its steps.

Belongs here: the one grammar of these paths. What stands where a path leads to is `json_lines`' to extract, and
`sluice.erasure.json_text`'s to find in a text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# As DuckDB takes them apart: a key in quotes, with a backslash before a quote or another backslash; a key as it stands
# up to the next step; an index, from the end with `#-` or `-` before it. A key that is `*` means every key,
# even quoted; without quotes so does one that begins with it.
_STEP = re.compile(
    r'\.(?:"(?P<quoted>(?:[^"\\]|\\.)+)"|(?P<bare>[^".*\[][^.\[]*))|\[(?P<end>#-|-)?(?P<index>[0-9]+)\]', re.S
)
_ESCAPED = re.compile(r'\\(["\\])')
_EVERY_KEY = "*"

Step = str | tuple[int, bool]


def json_path(name: str, *, nested: bool = False) -> str:
    """JSON path of a column: a name as it stands, a `$…` path itself, with `nested` a dotted name taken apart."""
    if name.startswith("$"):
        return name
    return path_of(name.split(".") if nested else [name])


def path_of(steps: Sequence[Step]) -> str:
    """The path that has these steps; of one name the path of a column that is called so, whatever signs it has."""
    return "$" + "".join(_written(step) for step in steps)


def steps(path: str) -> list[Step]:
    """A JSON path such as `$.lines[0]."unit price"` as its keys and indexes; of these, whether they count from the end.

    Raises:
        ValueError: it is none that leads to one value.
    """
    if "\0" in path:
        raise ValueError("it holds a NUL")
    found: list[Step] = []
    at = 1
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            raise ValueError(f"{path[at:]!r} is not understood")
        quoted, bare, index = match["quoted"], match["bare"], match["index"]
        if index is not None:
            # None is before the first from the end: DuckDB takes it for the first.
            found.append((int(index), match["end"] is not None and int(index) > 0))
        else:
            key = bare if quoted is None else _ESCAPED.sub(r"\1", quoted)
            if key == _EVERY_KEY:
                raise ValueError("a key * means every key, and there is no other way to write it")
            found.append(key)
        at = match.end()
    return found


def _written(step: Step) -> str:
    if isinstance(step, str):
        escaped = step.replace("\\", "\\\\").replace('"', '\\"')
        return f'."{escaped}"'
    index, from_end = step
    return f"[{'#-' if from_end else ''}{index}]"
