"""Variables of the environment in what a request is made of, and keeping their values out of everything else."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

from dotenv import dotenv_values

from sluice.contracts.rest import VARIABLE
from sluice.errors import ConfigurationError
from sluice.settings import PROJECT

HIDDEN = "***"

# It tells of every request with its query, at level DEBUG.
_TALKATIVE = ("urllib3.connectionpool", "urllib3.util.retry")


class Secrets:
    """Fills variables in, and remembers the values of those that are secrets, to hide them."""

    def __init__(self, environment: Mapping[str, str | None] | None = None) -> None:
        """Bind to variables.

        Args:
            environment: the variables; None: those of the process, and of `.env` in the project folder.
        """
        if environment is None:
            environment = {**dotenv_values(PROJECT / ".env"), **os.environ}
        self._environment = environment
        self._values: set[str] = set()

    def fill(self, where: str, text: str) -> str:
        """A text with its variables' values.

        Args:
            where: what the text is, such as `headers.Authorization`, for the error.
            text: with `${NAME}` for a secret or `${NAME:-default}` for a setting.

        Raises:
            ConfigurationError: a variable without a default is not set, or its value cannot be sent.
        """
        filled, end = [], 0
        for variable in VARIABLE.finditer(text):
            name, default = variable[1], variable[2]
            value = self._environment.get(name) or default
            if value is None or not value.strip():
                raise ConfigurationError(
                    f"rest.{where} needs the variable {name}, which is not set. Set it and try again."
                )
            if not value.isprintable() or not value.isascii():
                raise ConfigurationError(
                    f"The variable {name} of rest.{where} holds a line end or another character that cannot be sent. "
                    "Set it anew."
                )
            if default is None:
                self._values.add(value)
            filled += [text[end : variable.start()], value]
            end = variable.end()
        return "".join([*filled, text[end:]])

    def hide(self, text: str) -> str:
        """A text without any secret that was filled in, plain or as an address has it."""
        forms = {
            form for value in self._values for form in (value, quote(value), quote(value, safe=""), quote_plus(value))
        }
        # The longest first: one secret may be the beginning of another.
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, HIDDEN)
        return text

    @contextmanager
    def out_of_logs(self) -> Iterator[None]:
        """While it lasts, what the HTTP library logs is scrubbed."""

        def scrub(record: logging.LogRecord) -> bool:
            record.msg, record.args = self.hide(record.getMessage()), ()
            return True

        loggers = [logging.getLogger(name) for name in _TALKATIVE]
        for logger in loggers:
            logger.addFilter(scrub)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(scrub)
