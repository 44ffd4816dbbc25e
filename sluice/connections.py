"""What a connection takes that nobody may read: PostgreSQL's strings, settings of Kafka's client, DuckDB's secrets.

What is wrong with them, and how passwords stay out of every message. Nothing here connects to anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import unquote

# A keyword=value string as libpq takes it, and one pair of it.
_VALUE = r"(?:'(?P<quoted>(?:\\.|[^'\\])*)'|(?P<bare>(?:\\.|[^\s'\\])(?:\\.|[^\s\\])*)?)"
_PAIR = re.compile(rf"\s*(?P<key>\w+)\s*=\s*{_VALUE}(?=\s|$)")
_ADDRESS = re.compile(r"postgres(?:ql)?://(?:(?P<user>[^:@/\s]*)(?::(?P<password>[^@/\s]*))?@)?(?P<rest>\S*)$")
# What a message may show of a connection.
_SHOWN = ("host", "hostaddr", "port", "dbname", "user", "sslmode")

_SECRET = re.compile(
    r"""(\w*(?:passw|pwd|secret|token)\w*\s*=\s*)('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\\.|[^\s'"\\])+|\S+)""",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"""(password\s*=\s*)('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\\.|[^\s'"\\])+)""", re.IGNORECASE)
_URI_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@")

_BROKER = r"(\[[0-9a-fA-F:.]+\]|[^\s,:/@\[\]]+):\d{1,5}"
_BROKERS = re.compile(rf"{_BROKER}(\s*,\s*{_BROKER})*")

# What exactly-once rests on; `sluice.eventlog.kafka` sets them, and nobody else.
KAFKA_FIXED = frozenset(
    {
        "acks",
        "allow.auto.create.topics",
        "auto.offset.reset",
        "delivery.report.only.error",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "isolation.level",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)


def kafka_client(text: str) -> dict[str, str | int | float | bool]:
    """Settings of Kafka's client, as librdkafka names them.

    Args:
        text: brokers as `host:port,...`, or the settings as a JSON object.

    Raises:
        ValueError: what is wrong with them, without a value.
    """
    if not text.lstrip().startswith("{"):
        if not _BROKERS.fullmatch(text.strip()):
            raise ValueError("it is neither host:port,... nor a JSON object of the client's settings")
        return {"bootstrap.servers": text.strip()}
    try:
        found = json.loads(text)
    except ValueError as error:
        # Python's message tells the place and quotes nothing.
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(found.get("bootstrap.servers"), str):
        raise ValueError('it does not say "bootstrap.servers": "host:port,..."')
    for key, value in found.items():
        if key in KAFKA_FIXED:
            raise ValueError(f"{key} is not to be chosen: that no record is lost or read twice rests on it")
        if not isinstance(value, str | int | float | bool):
            raise ValueError(f"{key} is neither a text nor a number nor true or false")
    settings: dict[str, str | int | float | bool] = found
    return settings


def problem(connection: str) -> str | None:
    """Why this is no connection string, without a word of it; None if it is one.

    libpq's own messages quote the part that is wrong, which may be the password.
    """
    if "://" in connection.split("=", 1)[0]:
        if not _ADDRESS.match(connection):
            return "it is no address: postgresql://user:password@host:port/database"
        if re.search(r"%(?![0-9A-Fa-f]{2})", connection):
            return "a % in it is not followed by two hex digits; write %25 for the sign itself"
        return None
    position = 0
    while connection[position:].strip():
        pair = _PAIR.match(connection, position)
        if pair is None:
            return (
                f"what begins at character {position + 1} is no keyword=value. A value with spaces is written in "
                "single quotes, and a quote or backslash in it after a backslash"
            )
        position = pair.end()
    return None


def password_of(connection: str) -> str | None:
    """The password in a connection string; None if it has none."""
    address = _ADDRESS.match(connection)
    if address:
        return unquote(address["password"]) if address["password"] else None
    found = _pairs(connection).get("password")
    return found or None


def parts(connection: str) -> dict[str, str]:
    """The keywords and values of a connection string, of either form. The password is among them: never print it."""
    address = _ADDRESS.match(connection)
    if not address:
        return _pairs(connection)
    where, _, options = address["rest"].partition("?")
    place, _, database = where.partition("/")
    # An address of IPv6 stands in brackets.
    host, port = place.rsplit(":", 1) if re.search(r":\d+$", place) else (place, "")
    found = {
        "host": host.strip("[]"),
        "port": port,
        "dbname": database,
        "user": address["user"] or "",
        "password": address["password"] or "",
    }
    found |= dict(option.split("=", 1) for option in options.split("&") if "=" in option)
    return {key: unquote(value) for key, value in found.items() if value}


def without_password(connection: str) -> str:
    """A connection string less its password; libpq then takes it from PGPASSWORD or a password file."""
    return _URI_PASSWORD.sub(r"\1@", _PASSWORD.sub("", connection)).strip()


def shown(connection: str) -> str:
    """What a message may tell of a connection: where it leads and who asks."""
    address = _ADDRESS.match(connection)
    if address:
        return f"{address['user'] or ''}@{address['rest'].split('?')[0]}".lstrip("@")
    pairs = _pairs(connection)
    return " ".join(f"{key}={pairs[key]}" for key in _SHOWN if key in pairs)


def secret_sql(values: Mapping[str, str], name: str = "") -> str:
    """The statement that makes a secret of DuckDB, which takes no bound values there; never print it.

    Args:
        values: its type and what else that takes.
        name: a word; without it the secret is one of its type for all.
    """
    given = ", ".join("{} '{}'".format(key, value.replace("'", "''")) for key, value in values.items())
    return f"CREATE SECRET {name} ({given})"


def scrub(message: str, connection: str = "") -> str:
    """Hide passwords in a message: whatever looks like one, and all but the harmless parts of a connection string."""
    if connection:
        message = message.replace(connection, shown(connection))
    return _URI_PASSWORD.sub(r"\1:***@", _SECRET.sub(r"\1***", message))


def _pairs(connection: str) -> dict[str, str]:
    found = {}
    for pair in _PAIR.finditer(connection):
        value = pair["quoted"] if pair["quoted"] is not None else pair["bare"] or ""
        found[pair["key"]] = re.sub(r"\\(.)", r"\1", value)
    return found
