"""A capture in a process of its own, for whoever runs more than one: Java, once ended in a process, stays so.

Nor can a Java machine that hangs, or takes all memory, take along whoever waits for it. The child is
`python -m sluice.capture` (`__main__`); it answers by a pipe, and ends when its standard input does, so that it does
not outlive a parent that was killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import IO

from sluice import errors
from sluice.capture.configuration import Capture
from sluice.capture.running import Captured
from sluice.connections import scrub
from sluice.errors import CaptureError, SluiceError
from sluice.settings import PROJECT, Settings

# Asked to stop, Debezium has 10 s for the batch under way and 10 s for its offsets (`engine.CLOSE_MS`); three times it.
GRACE_SECONDS = 60.0

# Besides the seconds it was to capture: it starts in some 5 s, on a machine that is busy in some 30.
START_SECONDS = 300.0

# Of what a child said that ended without an answer; a pipe holds 64 KiB, and an answer must fit in.
_TAIL_BYTES = 4_000
ANSWER_CHARACTERS = 10_000


def run_apart(settings: Settings, capture: Capture, *, once: bool = False, seconds: float | None = None) -> Captured:
    """As `sluice.capture.run`, in a process of its own. Whatever interrupts it stops that process properly first.

    Raises:
        CaptureError: as `run`; also: the process died, or did not end a good while after its time was over.
        SluiceError: as `run`.
    """
    options = ["--once"] if once else []
    options += [] if seconds is None else ["--for", str(seconds)]
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as answers, tempfile.TemporaryFile() as words:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "sluice.capture", capture.name, "--answer", str(writing), *options],
                cwd=PROJECT,
                env=_environment(settings),
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
        try:
            process.wait(None if seconds is None else seconds + START_SECONDS)
        except subprocess.TimeoutExpired:
            raise CaptureError(
                f"The capture {capture.name} should have ended after {seconds:g} seconds and has not, so it was "
                "stopped. What is in the log stays; run it again. Debezium's own words are in "
                f"{settings.capture_path / capture.name / 'debezium.log'}."
            ) from None
        finally:
            _end(process)
        return _answer(capture, answers.read(), process.returncode, words)


def _environment(settings: Settings) -> dict[str, str]:
    """The environment of this process, and of the settings what a capture needs of them."""
    return {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "SLUICE_CAPTURES": str(settings.captures),
        "SLUICE_KAFKA": settings.kafka.get_secret_value(),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have the child end, if it has not. Who is interrupted in this as well leaves one behind that ends by itself."""
    assert process.stdin is not None
    process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answer(capture: Capture, answer: bytes, code: int, words: IO[bytes]) -> Captured:
    """What the child answered, as `run` would have told it."""
    if not answer:
        words.seek(-min(_TAIL_BYTES, words.seek(0, os.SEEK_END)), os.SEEK_END)
        said = scrub(words.read().decode("utf-8", "replace"), capture.connection_string()).strip()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise CaptureError(
            f"The process of the capture {capture.name} {how} and said: {said or 'nothing'}. What is in the log stays; "
            "run it again."
        )
    told = json.loads(answer)
    if "error" in told:
        kind = getattr(errors, told["error"], None)
        raise (kind if isinstance(kind, type) and issubclass(kind, SluiceError) else CaptureError)(told["message"])
    return Captured(told["written"], told["skipped"])
