"""JSON as text: where each value stands, so that one can be replaced while all else stays byte for byte. Pure.

What a contract makes of a document belongs to `lines`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sluice.records.json_paths import Step

_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
# NaN and the like are no JSON, but DuckDB's reader takes them.
_BARE = re.compile(r"true|false|null|-?(?:nan|inf(?:inity)?|(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)", re.I)


@dataclass(frozen=True)
class Node:
    """A value of a document and its place in the text.

    Of an object `members` are its keys and values, in order, a key twice where it stands twice; of a list its values
    under empty keys; None of any other. `text` is what a string says, a number as it is written; None for null.
    """

    start: int
    end: int
    kind: str
    text: str | None = None
    members: tuple[tuple[str, Node], ...] | None = None


def parse(text: str) -> Node | None:
    """The document a text holds; None if it is none."""
    try:
        node = _value(text, _skip(text, 0))
    except ValueError:
        return None
    return node if _skip(text, node.end) == len(text) else None


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


@dataclass
class _Open:
    """A container that is being read, and the key of the value that comes next in it."""

    start: int
    opened: str
    members: list[tuple[str, Node]] = field(default_factory=list)
    key: str = ""

    @property
    def closing(self) -> str:
        return "}" if self.opened == "{" else "]"

    def closed(self, end: int) -> Node:
        return Node(self.start, end, "object" if self.opened == "{" else "list", members=tuple(self.members))


def _value(text: str, at: int) -> Node:
    """The value that begins at `at`, as deep as it may be: containers wait in a list, not in calls."""
    waiting: list[_Open] = []
    while True:
        opened = text[at : at + 1]
        if opened and opened in "{[":
            waiting.append(_Open(at, opened))
            at = _skip(text, at + 1)
        else:
            node = _scalar(text, at)
            if not waiting:
                return node
            at = _added(text, waiting[-1], node)
        # A comma before the closing bracket is taken, as DuckDB takes it.
        while text[at : at + 1] == waiting[-1].closing:
            node = waiting.pop().closed(at + 1)
            if not waiting:
                return node
            at = _added(text, waiting[-1], node)
        if waiting[-1].opened == "{":
            waiting[-1].key, at = _string(text, at)
            at = _skip(text, at)
            if text[at : at + 1] != ":":
                raise ValueError(f"no colon at {at}")
            at = _skip(text, at + 1)


def _added(text: str, container: _Open, node: Node) -> int:
    """Put a value into its container; returns where the next one, or the end, is."""
    container.members.append((container.key, node))
    at = _skip(text, node.end)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != container.closing:
        raise ValueError(f"neither a comma nor an end at {at}")
    return at


def _scalar(text: str, at: int) -> Node:
    if text[at : at + 1] == '"':
        string, end = _string(text, at)
        return Node(at, end, "string", string)
    match = _BARE.match(text, at)
    if match is None:
        raise ValueError(f"no value at {at}")
    return Node(at, match.end(), "bare", None if match.group() == "null" else match.group())


def _string(text: str, at: int) -> tuple[str, int]:
    match = _STRING.match(text, at)
    if match is None:
        raise ValueError(f"no string at {at}")
    return json.loads(match.group(), strict=False), match.end()


def at_path(node: Node, path: Iterable[Step]) -> list[Node]:
    """The values a path leads to: none, one, or several where a key stands twice."""
    found = [node]
    for step in path:
        if isinstance(step, str):
            found = [n for f in found if f.kind == "object" for key, n in f.members or () if key == step]
        else:
            index, from_end = step
            lists = [[n for _, n in f.members or ()] for f in found if f.kind == "list"]
            found = [
                own[-index if from_end else index]
                for own in lists
                if (0 < index <= len(own) if from_end else index < len(own))
            ]
    return found


def scalars(node: Node, without: Iterable[Node] = ()) -> Iterator[Node]:
    """Every value in a document that is neither object nor list, but for those in `without`."""
    left_out = {(n.start, n.end) for n in without}
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if (one.start, one.end) in left_out:
            continue
        if one.members is None:
            yield one
        waiting += [n for _, n in one.members or ()]


def emptied(text: str, nodes: Iterable[Node], left: Callable[[str], str] | None = None) -> str:
    """The text with these values null, or what `left` makes of them, and every other byte as it was."""
    out, at = [], 0
    for node in sorted(nodes, key=lambda n: (n.start, -n.end)):
        if node.start >= at:  # else it lies within one that is null already
            out += [text[at : node.start], "null" if left is None else left(text[node.start : node.end])]
            at = node.end
    return "".join([*out, text[at:]])
