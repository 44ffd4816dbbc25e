"""Landing: every file goes to the partition its path names, or is told with the reason; none is passed over."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from sluice.contracts import Contract
from sluice.errors import LandingError
from sluice.landing import Scan, partition_key, scan
from tests.conftest import Bench

START, END = date(2026, 1, 1), date(2026, 2, 1)


def look(contract: Contract, landing: Path, end: date | None = END) -> Scan:
    return scan(contract, landing, START, end)


def reasons(found: Scan) -> dict[str, str]:
    return {u.path: u.reason for u in found.unroutable}


def test_good_paths_are_routed(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put("orders/region=uk/date=2026-01-01/orders.csv", "12345")
    bench.put("orders/region=uk/date=2026-01-01/a.jsonl", "1")
    bench.put("orders/region=row/date=2026-01-31/b.ndjson.gz", "1")
    bench.put("orders/region=eu/date=2026-01-02/c.parquet", "1")
    bench.put("orders/region=eu/date=2026-01-02/c.csv.gz", "1")
    found = look(contracts["orders"], bench.landing)
    assert not found.unroutable
    assert [(f.path, f.partition_key, f.tokens, f.format, f.gzipped) for f in found.files] == [
        (
            "orders/region=eu/date=2026-01-02/c.csv.gz",
            "2026-01-02|eu",
            (("region", "eu"), ("date", "2026-01-02")),
            "csv",
            True,
        ),
        (
            "orders/region=eu/date=2026-01-02/c.parquet",
            "2026-01-02|eu",
            (("region", "eu"), ("date", "2026-01-02")),
            "parquet",
            False,
        ),
        (
            "orders/region=row/date=2026-01-31/b.ndjson.gz",
            "2026-01-31|row",
            (("region", "row"), ("date", "2026-01-31")),
            "jsonl",
            True,
        ),
        (
            "orders/region=uk/date=2026-01-01/a.jsonl",
            "2026-01-01|uk",
            (("region", "uk"), ("date", "2026-01-01")),
            "jsonl",
            False,
        ),
        (
            "orders/region=uk/date=2026-01-01/orders.csv",
            "2026-01-01|uk",
            (("region", "uk"), ("date", "2026-01-01")),
            "csv",
            False,
        ),
    ]
    csv = found.files[-1]
    stat = (bench.landing / csv.path).stat()
    assert (csv.size, csv.mtime_ns) == (5, stat.st_mtime_ns)
    assert {k: len(v) for k, v in found.by_partition().items()} == {
        "2026-01-01|uk": 2,
        "2026-01-02|eu": 2,
        "2026-01-31|row": 1,
    }


def test_a_free_token_is_kept_and_makes_no_partition(bench: Bench, contracts: dict[str, Contract]) -> None:
    for hour in ("00", "23"):
        bench.put(f"events/date=2026-01-01/hour={hour}/e.jsonl", "{}")
    found = look(contracts["events"], bench.landing)
    assert {f.partition_key for f in found.files} == {"2026-01-01"}
    assert [dict(f.tokens)["hour"] for f in found.files] == ["00", "23"]


def test_the_key_orders_its_dimensions_by_name(contracts: dict[str, Contract]) -> None:
    assert partition_key(contracts["orders"], {"region": "uk", "date": "2026-01-31"}) == "2026-01-31|uk"
    assert partition_key(contracts["events"], {"hour": "07", "date": "2026-01-31"}) == "2026-01-31"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("region=mars/date=2026-01-01/o.csv", "unknown region 'mars'; known are uk, eu, row"),
        ("region=UK/date=2026-01-01/o.csv", "unknown region 'UK'; known are uk, eu, row"),
        ("region=uk/date=2026-02-30/o.csv", "'2026-02-30' is no date like 2026-01-31"),
        ("region=uk/date=20260101/o.csv", "'20260101' is no date like 2026-01-31"),
        ("region=uk/date=2026-W01-1/o.csv", "'2026-W01-1' is no date like 2026-01-31"),
        ("region=uk/date=yesterday/o.csv", "'yesterday' is no date like 2026-01-31"),
        ("region=uk/date=2025-12-31/o.csv", "the date 2025-12-31 lies before SLUICE_START_DATE 2026-01-01"),
        ("region=uk/date=2026-02-01/o.csv", "the date 2026-02-01 lies not before SLUICE_END_DATE 2026-02-01"),
        (
            "region=uk/date=2026-01-01/o.txt",
            "the ending of 'o.txt' is none the contract allows (csv, jsonl, parquet)",
        ),
        (
            "region=uk/date=2026-01-01/o.parquet.gz",
            "the ending of 'o.parquet.gz' is none the contract allows (csv, jsonl, parquet)",
        ),
        ("region=uk/date=2026-01-01/o.csv.zip", "the ending of 'o.csv.zip' is none the contract allows"),
        ("region=uk/date=2026-01-01/csv", "the ending of 'csv' is none the contract allows"),
        (
            "region=uk/date=2026-01-01/more/o.csv",
            "the path does not fit orders/region={region}/date={date}/<file>",
        ),
        ("region=uk/o.csv", "the path does not fit orders/region={region}/date={date}/<file>"),
        ("o.csv", "the path does not fit orders/region={region}/date={date}/<file>"),
        ("date=2026-01-01/region=uk/o.csv", "the path does not fit orders/region={region}/date={date}/<file>"),
        ("region=uk/date=2026-01-01/o\\d.csv", "the name holds a backslash"),
    ],
)
def test_a_path_that_fits_nowhere_says_why(
    path: str, reason: str, bench: Bench, contracts: dict[str, Contract]
) -> None:
    bench.put("orders/region=uk/date=2026-01-01/good.csv", "1")
    target = bench.landing / "orders" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("123")
    found = look(contracts["orders"], bench.landing)
    assert [f.path for f in found.files] == ["orders/region=uk/date=2026-01-01/good.csv"]
    (told,) = found.unroutable
    assert (told.path, told.size) == (f"orders/{path}", 3)
    assert told.reason.startswith(reason)


def test_a_format_the_contract_does_not_list_is_told(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put("cdc/products/date=2026-01-01/p.csv", "1")
    assert reasons(look(contracts["products"], bench.landing)) == {
        "cdc/products/date=2026-01-01/p.csv": "the ending of 'p.csv' is none the contract allows (jsonl)"
    }


def test_without_an_end_every_later_date_is_taken(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders("2031-07-01|uk")
    assert [f.partition_key for f in look(contracts["orders"], bench.landing, None).files] == ["2031-07-01|uk"]


@pytest.mark.parametrize(
    "name", [".o.csv", "_o.csv", "o.csv.tmp", "o.csv.part", "o.csv.partial", "o.csv.crdownload", "o.csv.filepart"]
)
def test_files_in_flight_are_left_alone(name: str, bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put(f"orders/region=uk/date=2026-01-01/{name}", "1")
    bench.put("orders/_temporary/0/region=uk/date=2026-01-01/o.csv", "1")
    bench.put("orders/region=uk/.staging/o.csv", "1")
    assert look(contracts["orders"], bench.landing) == Scan((), ())
    # The very file, once its upload is done, is seen.
    folder = bench.landing / "orders/region=uk/date=2026-01-01"
    (folder / name).rename(folder / "o.csv")
    assert len(look(contracts["orders"], bench.landing).files) == 1


@pytest.mark.parametrize(
    "name", ["a[1].csv", "a*b?.csv", 'it\'s "quoted".csv', "Übung 茶 🎉.csv", "a\nb.csv", "{a,b}.csv"]
)
def test_unusual_names_are_routed(name: str, bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put(f"orders/region=uk/date=2026-01-01/{name}", "1")
    assert [f.path for f in look(contracts["orders"], bench.landing).files] == [
        f"orders/region=uk/date=2026-01-01/{name}"
    ]


def test_a_name_that_is_no_text_is_told_in_text(bench: Bench, contracts: dict[str, Contract]) -> None:
    folder = bench.put_orders("2026-01-01|uk").parent
    try:
        (folder / os.fsdecode(b"caf\xe9.csv")).write_bytes(b"1")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    found = look(contracts["orders"], bench.landing)
    assert reasons(found) == {"orders/region=uk/date=2026-01-01/caf\\udce9.csv": "the name is not UTF-8"}
    assert len(found.files) == 1


def test_links_are_followed_to_files_of_the_landing_folder_only(
    bench: Bench, contracts: dict[str, Contract], tmp_path: Path
) -> None:
    target = bench.put_orders("2026-01-01|uk")
    folder = target.parent
    outside = tmp_path / "outside.csv"
    outside.write_text("secret")
    (tmp_path / "folder").mkdir()
    (folder / "inside.csv").symlink_to(target)
    (folder / "outside.csv").symlink_to(outside)
    (folder / "dangling.csv").symlink_to(tmp_path / "nothing")
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "folder.csv").symlink_to(tmp_path / "folder")
    os.mkfifo(folder / "pipe.csv")
    found = look(contracts["orders"], bench.landing)
    assert [Path(f.path).name for f in found.files] == ["inside.csv", "orders.csv"]
    assert {Path(p).name: r for p, r in reasons(found).items()} == {
        "outside.csv": "the link points outside the landing folder",
        "dangling.csv": "the link leads to no file",
        "loop.csv": "the link cannot be followed: Too many levels of symbolic links",
        "folder.csv": "the link leads to no file",
        "pipe.csv": "it is no file but a pipe, socket or device",
    }


def test_a_missing_landing_folder_is_an_error_but_a_missing_source_folder_is_not(
    bench: Bench, contracts: dict[str, Contract]
) -> None:
    assert look(contracts["orders"], bench.landing) == Scan((), ())
    for gone in (bench.landing / "gone", bench.put("file", "")):
        with pytest.raises(LandingError, match=r"is not there\. Create it, mount it, or set SLUICE_LANDING") as caught:
            look(contracts["orders"], gone)
        assert str(gone) in str(caught.value)


def test_a_source_folder_that_is_a_file_is_an_error(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put("orders", "not a folder")
    with pytest.raises(LandingError, match=r"Cannot list .*orders: Not a directory. Check its rights and its mount"):
        look(contracts["orders"], bench.landing)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_an_unreadable_folder_is_an_error(bench: Bench, contracts: dict[str, Contract]) -> None:
    folder = bench.put_orders("2026-01-01|uk").parent
    folder.chmod(0)
    try:
        with pytest.raises(LandingError, match="Permission denied"):
            look(contracts["orders"], bench.landing)
    finally:
        folder.chmod(0o755)
