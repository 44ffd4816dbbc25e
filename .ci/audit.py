"""Asks the OSV database whether a known vulnerability is in a locked dependency: `python .ci/audit.py LOCK`.

Exit code 1 if one is. A database that cannot be reached or does not answer is told of, and is no failure: a check of
one's own work must not turn red because of somebody else's network.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys

# pip-audit asks about one package after the other, a quarter of a second each at worst.
LONGEST_SECONDS = 300


def audit(lock: str, *, url: str | None) -> int:
    """Audit one lock file; returns the exit code."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", lock, "--require-hashes", "--disable-pip",
        "--format", "json", "--vulnerability-service", "osv", "--timeout", "10", "--progress-spinner", "off",
        *(["--osv-url", url] if url else []),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        return _skipped(lock, f"no answer within {LONGEST_SECONDS} s")
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        # pip-audit's exit code is 1 either way; it prints its findings only if it has some.
        if re.search(r"^ERROR:.*requirement", done.stderr, re.MULTILINE):
            print(f"dependencies: {lock} cannot be audited:\n{done.stderr.strip()}", file=sys.stderr)
            return 1
        return _skipped(lock, (done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    known = [(d["name"], d["version"], v) for d in found for v in d.get("vulns", [])]
    for name, version, vulnerability in known:
        mended = ", ".join(vulnerability["fix_versions"]) or "no release"
        print(f"{name} {version}: {vulnerability['id']}, mended in {mended}", file=sys.stderr)
    print(f"dependencies: {len(found)} of {lock} audited, {len(known)} known vulnerabilities")
    return 1 if known else 0


def _skipped(lock: str, reason: str) -> int:
    print(f"dependencies: {lock} NOT audited, the database of vulnerabilities does not answer: {reason}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock")
    parser.add_argument("--osv-url", help="of the database; OSV's own by default")
    chosen = parser.parse_args()
    raise SystemExit(audit(chosen.lock, url=chosen.osv_url))
