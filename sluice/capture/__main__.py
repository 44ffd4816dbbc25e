"""`python -m sluice.capture NAME --answer FD`: a capture for a parent process, which `sluice.capture.apart` is.

People use `sluice capture run`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Sequence

from sluice.capture.apart import ANSWER_CHARACTERS, GRACE_SECONDS
from sluice.capture.configuration import load_capture
from sluice.capture.running import run
from sluice.errors import SluiceError
from sluice.settings import load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Capture, and answer with what was done, or why not; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sluice.capture", description="For sluice.capture.apart.")
    parser.add_argument("name")
    parser.add_argument("--answer", type=int, required=True, help="descriptor of a pipe")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--for", dest="seconds", type=float)
    chosen = parser.parse_args(arguments)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer: dict[str, str | int]
    try:
        settings = load_settings()
        done = run(settings, load_capture(settings, chosen.name), once=chosen.once, seconds=chosen.seconds)
        answer = {"written": done.written, "skipped": done.skipped}
    except SluiceError as error:
        answer = {"error": type(error).__name__, "message": str(error)[:ANSWER_CHARACTERS]}
    with os.fdopen(chosen.answer, "w", encoding="utf-8") as pipe:
        json.dump(answer, pipe)
    return 1 if "error" in answer else 0


def _end_with_parent() -> None:
    """Stop when the parent is gone or lets go: properly, or after a while anyhow."""
    # Not by sys.stdin: a reader waiting in it would hold up the end of the interpreter.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
