"""What a contract may say of an API, and what it is told when it says it wrong."""

from __future__ import annotations

from typing import Any

import pytest

from sluice.contract_diff import differences
from sluice.contracts.rest import FetchSchedule, Pagination, RestSource
from sluice.errors import ContractError
from tests.conftest import MakeContract

URL = {"url": "https://api.example.com/{date}"}


def test_what_is_not_said_has_defaults(make_contract: MakeContract) -> None:
    assert make_contract({"id": {}}).rest is None
    assert make_contract({"id": {}}, formats=["jsonl"], rest=URL).rest == RestSource(url=URL["url"])


def test_everything_is_read(make_contract: MakeContract) -> None:
    found = make_contract(
        {"id": {}}, formats=["jsonl"],
        rest={
            "url": "${API:-http://127.0.0.1:1}/x", "params": {"day": "{date}", "n": 5},
            "headers": {"Authorization": "Bearer ${TOKEN}"}, "rows": "$.data.rows", "empty": "allow",
            "pagination": {"kind": "page", "param": "p", "size": 9, "sizeParam": "n", "total": "m.n", "end": "short"},
            "rate": 2, "timeouts": {"read": 1}, "retries": {"attempts": 1, "jitter": 0}, "breaker": {"failures": 2},
            "limits": {"pages": 3}, "redirectHosts": ["files.example.com"],
            "schedule": {"cron": "*/15 7,9-17/2 1 * 1-5", "days": 3, "active": False},
        },
    ).rest  # fmt: skip
    assert found is not None
    assert found.params == (("day", "{date}"), ("n", "5")) and found.rows == ("data", "rows")
    assert found.pagination == Pagination("page", (), "p", 1, 9, "n", ("m", "n"), "short")
    assert (found.rate, found.timeouts.read, found.retries.attempts, found.limits.pages) == (2.0, 1.0, 1, 3)
    assert found.schedule == FetchSchedule("*/15 7,9-17/2 1 * 1-5", 3, False)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ({}, "rest.url is missing"),
        ({"url": "ftp://x"}, "must begin with http://"),
        ({"url": "https://user:word@x"}, "holds a user or password"),
        ({"url": "https://x/#a"}, "behind #"),
        ({"url": "https://x/{day}"}, "{day}, which landing.path does not. Known are {date}"),
        ({"url": "https://x/${A B}"}, "a variable is written"),
        (URL | {"urls": 1}, "Did you mean 'url'?"),
        (URL | {"pagination": {"kind": "pages"}}, "must be one of none, link_header"),
        (URL | {"pagination": {"knd": "page"}}, "Did you mean 'kind'?"),
        (URL | {"pagination": {"kind": "cursor", "param": "c"}}, "of kind cursor needs path"),
        (URL | {"pagination": {"kind": "page", "param": "p", "size": 5}}, "size and sizeParam go together"),
        (URL | {"pagination": {"kind": "page", "param": "p", "size": 0, "sizeParam": "n"}}, "from 1"),
        (URL | {"pagination": {"kind": "page", "param": "p", "end": "short"}}, "with a size, short"),
        (URL | {"headers": {"Authorization": "Bearer abc"}}, "looks like a secret"),
        (URL | {"headers": {"X-Api-Key": "${KEY:-abc}"}}, "looks like a secret"),
        (URL | {"params": {"access_token": "abc"}}, "write ${NAME} here"),
        (URL | {"headers": {"A b": "c"}}, "no name of a header"),
        (URL | {"headers": {"A": "c\nd"}}, "control character"),
        (URL | {"headers": {"A": "b", "a": "c"}}, "names a header twice"),
        (URL | {"params": {"all": True}}, "put true and false in quotes"),
        (URL | {"params": ["a"]}, "must be a mapping"),
        (URL | {"rows": "a..b"}, "must be a path"),
        (URL | {"empty": "maybe"}, "must be refuse or allow"),
        (URL | {"rate": 0}, "requests a second"),
        (URL | {"timeouts": {"read": 0}}, "must be seconds"),
        (URL | {"timeouts": {"total": True}}, "must be seconds"),
        (URL | {"retries": {"attempts": 0}}, "whole number from 1"),
        (URL | {"retries": {"attempt": 1}}, "Did you mean 'attempts'?"),
        (URL | {"limits": {"pages": 1.5}}, "whole number from 1"),
        (URL | {"redirectHosts": ["https://x"]}, "must list hosts"),
        (URL | {"schedule": {"cron": "daily"}}, "no cron line"),
        (URL | {"schedule": {"cron": "0 24 * * *"}}, "no cron line"),
        (URL | {"schedule": {"cron": "*/0 7 * * *"}}, "no cron line"),
        (URL | {"schedule": {"cron": "0 9-7 * * *"}}, "no cron line"),
        (URL | {"schedule": {"cron": "0 7 * * *", "days": 0}}, "from 1 to 366"),
        (URL | {"schedule": {"cron": "0 7 * * *", "active": "no"}}, "true or false"),
        ("https://x", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_write(make_contract: MakeContract, rest: Any, words: str) -> None:
    with pytest.raises(ContractError) as caught:
        make_contract({"id": {}}, formats=["jsonl"], rest=rest)
    assert words in str(caught.value) and "made.odcs.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("landing", "words"),
    [
        ({"formats": ["csv"]}, "Add jsonl"),
        ({"formats": ["jsonl"], "path": "x/{date}/{hour}"}, "keep {date}"),
        ({"formats": ["jsonl"], "duplicates": "batch"}, "Leave landing.duplicates at file"),
    ],
)
def test_it_must_land_where_a_fetch_can_put_it(
    make_contract: MakeContract, landing: dict[str, Any], words: str
) -> None:
    with pytest.raises(ContractError, match=words):
        make_contract({"id": {}}, rest=URL, **landing)


def test_how_it_is_fetched_changes_no_rows_fate_and_breaks_nobody(make_contract: MakeContract) -> None:
    without = make_contract({"id": {}}, formats=["jsonl"])
    fetched = make_contract({"id": {}}, formats=["jsonl"], rest=URL)
    assert without.hash == fetched.hash
    (change,) = differences(without, fetched)
    assert (change.kind, change.where) == ("compatible", "rest")
