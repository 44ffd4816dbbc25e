"""The list of the erased: by a keyed hash of each id, never the id; and keeping to it when rows of theirs arrive later.

The key lies outside the lake: whoever has the lake alone cannot tell who was erased, though ids are few enough to try.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets

import duckdb

from sluice.contracts import Column, Contract
from sluice.erasure.person import SQL_NUMBER, is_number
from sluice.errors import ErasureError
from sluice.ops_tables import now_utc
from sluice.pseudonyms import ERASURE, Key, digest_sql
from sluice.rules import text, value
from sluice.settings import KEY_CHARACTERS, Settings
from sluice.sql import literal, quoted

# The checksum of a letter whose text was erased begins so, and goes on with its line.
ERASED = "erased"

# Why such a letter is what it is, `decided_why`.
ERASED_WHY = "erased on request"

# What such a letter says instead of its reasons, which quote what was wrong.
ERASED_REASONS = (
    "[{'rule': 'erased', 'column': NULL::VARCHAR, 'value': NULL::VARCHAR, 'detail': 'the person it was of was erased'}]"
)


def register_key(settings: Settings, *, create: bool = False) -> Key:
    """The key of the list: from SLUICE_ERASURE_KEY, or from the home folder, where `create` makes one.

    Without one the key is empty.

    Raises:
        ErasureError: what the file holds is no key.
    """
    given = settings.erasure_key.get_secret_value()
    if given:
        return Key(given.encode())
    path = settings.erasure_key_path
    if create and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under its name it is whole, whenever the process is killed.
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # somebody else has made one meanwhile
            os.link(temporary, path)
        temporary.unlink()
    if not path.exists():
        return Key(b"")
    text = path.read_text().strip()
    if len(text) < KEY_CHARACTERS:
        raise ErasureError(
            f"{path} holds {len(text)} characters, which is no key: nobody who was erased could be recognised. Put "
            "erasure.key back from where you keep it; if nobody has been erased yet, remove the file."
        )
    return Key(text.encode())


def note(
    con: duckdb.DuckDBPyConnection, subject: str, digest: str, key_id: str, snapshot: int, by: str
) -> tuple[int, bool]:
    """Enter a person into the list, or find them there: the body of a transaction.

    Returns:
        The snapshot before their erasure began, and whether they were in the list.
    """
    check_key(con, key_id)
    row = con.execute(
        "SELECT state, snapshot_id FROM ops.erasures WHERE subject = ? AND subject_hash = ?", [subject, digest]
    ).fetchone()
    if row is not None and row[0] != "done":
        return int(row[1]), True
    if row is not None:
        # Again, for instance after a backup was restored: the entry goes on to tell of the first time, and of all rows.
        con.execute(
            "UPDATE ops.erasures SET state = 'begun', snapshot_id = ? WHERE subject = ? AND subject_hash = ?",
            [snapshot, subject, digest],
        )
        return snapshot, True
    con.execute(
        "INSERT INTO ops.erasures (subject, subject_hash, key_id, state, snapshot_id, requested_by, requested_at, "
        "rows_removed, rows_emptied, letters_emptied) VALUES (?, ?, ?, 'begun', ?, ?, ?, 0, 0, 0)",
        [subject, digest, key_id, snapshot, by, now_utc()],
    )
    return snapshot, False


def listed(con: duckdb.DuckDBPyConnection, subject: str, digest: str) -> bool:
    """Whether a person is in the list, erased or about to be."""
    row = con.execute("SELECT 1 FROM ops.erasures WHERE subject = ? AND subject_hash = ?", [subject, digest]).fetchone()
    return row is not None


def reach(con: duckdb.DuckDBPyConnection, subject: str, digest: str, state: str, **counts: int) -> None:
    """Note how far an erasure has come, and what it has done; counts add up over tries."""
    added = "".join(f", {quoted(name)} = coalesce({quoted(name)}, 0) + {int(n)}" for name, n in counts.items())
    con.execute(
        f"UPDATE ops.erasures SET state = $state{added}, completed_at = CASE WHEN $state = 'done' THEN $now END "
        "WHERE subject = $subject AND subject_hash = $digest",
        {"state": state, "now": now_utc(), "subject": subject, "digest": digest},
    )


def check_key(con: duckdb.DuckDBPyConnection, key_id: str) -> None:
    """Refuse to go on with a key the list was not made with: nobody on it would be recognised.

    Raises:
        ErasureError: it is another, or there is none.
    """
    other = con.execute("SELECT count(*) FROM ops.erasures WHERE key_id IS DISTINCT FROM ?", [key_id]).fetchone()
    if other and other[0]:
        raise ErasureError(
            f"{other[0]} erased people cannot be recognised, so their rows could come back: the list was made with "
            "another key. Put erasure.key back into the home folder, or the former SLUICE_ERASURE_KEY into the "
            "environment. Nothing was written."
        )


def leave_out(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Take the erased out of the records in `judged`, before anything of them is written. Repeatable.

    Rows about an erased person are marked `erased`, and nobody writes them; other rows of theirs lose what says whose
    they are. Makes `erased_letters`, the rejected rows of which no text may be kept.
    """
    con.execute("CREATE OR REPLACE TEMP TABLE erased_letters (row_id BIGINT)")
    if not contract.subjects:
        return
    listed = con.execute(
        "SELECT count(*) FROM ops.erasures WHERE subject IN (SELECT unnest(?))", [list(contract.subjects)]
    ).fetchone()
    if not listed or not listed[0]:
        return
    row = con.execute(f"SELECT coalesce(CAST(getvariable('{ERASURE}_id') AS VARCHAR), '')").fetchone()
    check_key(con, row[0] if row else "")
    emptied = {c.name for c in contract.columns if c.personal}
    for column in contract.columns:
        if column.subject is None:
            continue
        name = f"CAST({value(column.name)} AS VARCHAR)"
        con.execute(
            "CREATE OR REPLACE TEMP TABLE erased_ids AS SELECT id FROM "
            f"(SELECT DISTINCT {name} AS id FROM judged WHERE {name} IS NOT NULL) AS given "
            f"JOIN ops.erasures AS e ON e.subject = $subject AND e.subject_hash = {digest_sql('given.id', ERASURE)}",
            {"subject": column.subject},
        )
        theirs = f"{name} IN (SELECT id FROM erased_ids)"
        con.execute(f"INSERT INTO erased_letters SELECT row_id FROM judged WHERE rejected AND {theirs}")
        if any(c.subject == column.subject and c.primary_key for c in contract.columns):
            con.execute(f"UPDATE judged SET erased = true WHERE {theirs}")
        else:
            own = sorted({column.name} | emptied)
            con.execute(
                f"UPDATE judged SET emptied = true, extra = NULL, {', '.join(f'{value(n)} = NULL' for n in own)} "
                f"WHERE {theirs}"
            )
        _leave_out_numbers(con, column)
    # Of bytes that are no text every other byte ends a word.
    blob = "from_base64(raw)"
    text_of_bytes = f"coalesce(TRY(decode({blob})), regexp_replace({blob}::VARCHAR, '\\\\x[0-9A-F]{{2}}', ' ', 'g'))"
    leave_out_of_texts(
        con,
        contract,
        f"SELECT row_id, CASE WHEN raw_encoding = 'base64' THEN {text_of_bytes} ELSE raw END AS raw FROM records "
        "WHERE fault IS NOT NULL AND raw IS NOT NULL",
    )


def _leave_out_numbers(con: duckdb.DuckDBPyConnection, column: Column) -> None:
    """Rejected rows whose id is no exact number of its type (15036.0, or with blanks around it), but is a number."""
    if not is_number(column):
        return
    number = f"TRY_CAST(trim({text(column.name)}) AS {SQL_NUMBER})"
    typed = f"TRY_CAST({number} AS {column.type})"
    con.execute(
        "INSERT INTO erased_letters SELECT row_id FROM (SELECT row_id, "
        f"CASE WHEN {typed} = {number} THEN CAST({typed} AS VARCHAR) END AS id "
        f"FROM judged JOIN records USING (row_id) WHERE rejected AND {value(column.name)} IS NULL) AS given "
        f"JOIN ops.erasures AS e ON e.subject = $subject AND e.subject_hash = {digest_sql('given.id', ERASURE)}",
        {"subject": column.subject},
    )


def leave_out_of_texts(con: duckdb.DuckDBPyConnection, contract: Contract, texts: str) -> None:
    """Add to `erased_letters` the records that cannot be taken apart, and so may have an erased id as any token.

    A token is a word; what stands between blanks or signs that part fields, or between the latter alone; and what is
    between two quotes, as it stands and as JSON or CSV means it.

    Args:
        con: on which `leave_out` has made the table.
        contract: of their source.
        texts: SQL of their `row_id` and `raw`.
    """
    dialect = contract.landing.csv
    sign, quote = re.escape(dialect.delimiter), re.escape(dialect.quote)
    given = {
        "words": "[0-9A-Za-z_]+",
        "between_blanks": r"""[^\s,;|"]+""",
        "between_signs": f"[^{sign}{quote}]+",
        "strings": r'"((?:[^"\\]|\\.)*)"',
        "quoted": f"{quote}((?:[^{quote}]|{quote}{quote})*){quote}",
        "subjects": sorted(contract.subjects),
    }
    string, twice, once = "'\"' || s || '\"'", literal(dialect.quote * 2), literal(dialect.quote)
    lists = [
        "regexp_extract_all(raw, $words)",
        "regexp_extract_all(raw, $between_blanks)",
        "list_transform(regexp_extract_all(raw, $between_signs), lambda s: trim(s))",
        "regexp_extract_all(raw, $strings, 1)",
        f"list_transform(regexp_extract_all(raw, $strings, 1), lambda s: CASE WHEN json_valid({string}) "
        f"THEN json_extract_string({string}, '$') END)",
        f"list_transform(regexp_extract_all(raw, $quoted, 1), lambda s: replace(s, {twice}, {once}))",
    ]
    con.execute(
        "INSERT INTO erased_letters SELECT DISTINCT row_id FROM ("
        f"SELECT row_id, unnest(list_distinct(flatten([{', '.join(lists)}]))) AS token FROM ({texts})) AS words "
        f"JOIN ops.erasures AS e ON e.subject_hash = {digest_sql('words.token', ERASURE)} "
        "AND e.subject IN (SELECT unnest($subjects))",
        given,
    )
