"""`sluice dead-letters`: what it lists, shows, replays, discards and exports, and what it says when that goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice.cli import main
from sluice.contracts import Contract
from sluice.dead_letters import Choice, letters
from tests.conftest import Bench

GOOD = "489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"


def test_a_refused_batch_replayed_says_why_it_is_refused_again(
    home: Bench, contracts: dict[str, Contract], capsys: pytest.CaptureFixture[str]
) -> None:
    home.put_orders("2026-01-01|uk", GOOD.replace("CUP,1,", "CUP,one,"), GOOD)
    home.ingest(contracts["orders"])
    assert main(["dead-letters", "replay", "--source", "orders"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "orders: 0 partitions ingested again, 1 refused, 0 without files",
        "    2026-01-01|uk: 1 of 2 rows were rejected, more than the contract allows (gates.maxRejectedShare: 0.05)",
    ]


def test_dead_letters_from_list_to_replay(
    home: Bench, tmp_path: Path, contracts: dict[str, Contract], capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str, code: int = 0) -> str:
        assert main(["dead-letters", *arguments]) == code
        captured = capsys.readouterr()
        assert all(line.isprintable() for line in (captured.out + captured.err).split("\n"))
        return captured.out + captured.err

    assert "There is no lake" in said("list", code=1)
    assert "There is no lake" in said("discard", "--source", "orders", "--why", "x", code=1)
    assert not home.settings.catalog_path.exists()
    # A value and a file's name that would steer a terminal.
    steering = GOOD.replace("CUP,1,", "\x1b]0;owned\x07CUP,one,")
    good = [GOOD.replace("489434", str(489435 + n)) for n in range(40)]
    home.put_orders("2026-01-01|uk", *good, steering, GOOD.replace("CUP,1,", "CUP,two,"), name="o\x1b[2Jrders.csv")
    home.ingest(contracts["orders"])
    listed = said("list").splitlines()
    assert listed[0].startswith("orders  type (quantity): 2 letters, 2 rows, 20")
    assert listed[-1] == "2 open, 0 replayed, 0 discarded, 0 superseded"
    # Nor may a column's.
    home.put("orders/region=uk/date=2026-01-02/twice.csv", "\x1b[2J\u2028,\x1b[2J\u2028\n1,2\n")
    home.ingest(contracts["orders"])
    assert r"orders  malformed (\x1b[2J\u2028): 1 letter, 1 row" in said("list")
    assert r"    - malformed (\x1b[2J\u2028): The header names" in said("show", "--rule", "malformed")
    assert said("discard", "--rule", "malformed", "--why", "no file of theirs") == "1 dead letter discarded\n"
    shown = said("show", "--rule", "type")
    assert r"o\x1b[2Jrders.csv, line 42" in shown and r"\x1b]0;owned\x07CUP,one" in shown
    first, second = (line.split()[0] for line in shown.splitlines() if not line.startswith(" "))
    assert "0 accepted, 0 duplicates, 2 failed again (`sluice dead-letters show --source orders` says why)" in said(
        "replay", "--source", "orders", code=1
    )
    assert "name its ID" in said("replay", "--payload", "x", code=1)
    assert "is no record" in said("replay", first, "--payload", "a\nb", code=1)
    assert "Say which" in said("replay", code=1)
    wrong = GOOD.replace("CUP,1,", "CUP,three,")
    hint = f"1 failed again (`sluice dead-letters show {first[:8]}` says why)"
    assert hint in said("replay", first[:8], "--payload", wrong, code=1)
    shown = said("show", first[:8])
    assert "(quantity): three" in shown
    assert "    corrected (not taken; the reasons are of what was tried last): 489434,85048,CUP,three," in shown
    assert "See `sluice dead-letters show`, which tells their ids" in said("replay", "0" * 32, code=1)
    both = tmp_path / "both.jsonl"
    both.write_text(json.dumps({"dead_letter_id": first, "corrected": GOOD}) + "\n")
    assert f"{first!r} is corrected twice, once under {first[:8]!r}" in said(
        "replay", first[:8], "--payload", wrong, "--corrections", str(both), code=1
    )
    assert f"corrects {first!r}, too" in said("replay", first, "--payload", wrong, "--corrections", str(both), code=1)
    assert "1 accepted" in said("replay", first[:8], "--payload", GOOD, "--by", "ann")
    assert said("replay", first[:8], "--payload", GOOD, code=1).startswith("sluice: ")
    assert "ann: replayed" in said("show", first[:8])
    out = tmp_path / "letters.csv"
    assert said("export", str(out)) == f"1 dead letter written to {out}\n"
    assert "--overwrite" in said("export", str(out), code=1)
    # A misspelt name is no kind of letters of which there happen to be none.
    none = tmp_path / "none.csv"
    for asked in (["list"], ["export", str(none)]):
        for option in ("--partition", "--rule", "--column"):
            assert said(*asked, option, "ordrs", code=1) == "No dead letter matches.\n"
    assert not none.exists()
    assert said("export", str(out), "--overwrite") == f"1 dead letter written to {out}\n"
    # A file in which nothing is corrected replays nothing, and not everything.
    assert "corrects nothing" in said("replay", "--corrections", str(out), code=1)
    assert home.letters("orders")[0][2] == 1
    assert "Say which" in said("discard", "--why", "x", code=1)
    assert "no open dead letter" in said("discard", "0" * 32, "--why", "x", code=1)
    assert said("discard", second, "--why", "a \x1b[31mtest", "--by", "bob") == "1 dead letter discarded\n"
    assert r"bob: a \x1b[31mtest" in said("show", second)
    assert said("show", "--rule", "nothing", code=1) == "No dead letter matches.\n"
    assert said("replay", "--all", code=1) == "No open dead letter matches.\n"
    # A file that is filled in bit by bit is given again as a whole.
    mended = tmp_path / "mended.jsonl"
    mended.write_text(json.dumps({"dead_letter_id": first, "corrected": GOOD}) + "\n")
    assert said("replay", "--corrections", str(mended)) == "1 correction already in bronze\n"
    assert said("list").splitlines()[-1] == "0 open, 1 replayed, 2 discarded, 0 superseded"
    assert home.ledger("orders") == {"2026-01-01|uk": (42, 41, 1, 0), "2026-01-02|uk": (1, 0, 1, 0)}
    for wrong in ("0", "-1", "many"):
        with pytest.raises(SystemExit):
            main(["dead-letters", "show", "--limit", wrong])


def test_all_and_a_file_of_corrections_take_both(
    home: Bench, tmp_path: Path, contracts: dict[str, Contract], capsys: pytest.CaptureFixture[str]
) -> None:
    good = [GOOD.replace("489434", str(489435 + n)) for n in range(40)]
    home.put_orders("2026-01-01|uk", *good, GOOD.replace("CUP,1,", "CUP,one,"), GOOD.replace("CUP,1,", "CUP,two,"))
    home.put("cdc/customers/date=2026-01-01/customers.jsonl", "no JSON\n")
    home.ingest(contracts["orders"])
    home.ingest(contracts["customers"])
    assert main(["dead-letters", "list", "--source", "orders"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 open, 0 replayed, 0 discarded, 0 superseded"
    assert main(["dead-letters", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 open, 0 replayed, 0 discarded, 0 superseded"
    first = home.sql("SELECT dead_letter_id FROM ops.dead_letters WHERE source = 'orders' ORDER BY line")[0][0]
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"dead_letter_id": first, "corrected": GOOD}) + "\n")
    assert main(["dead-letters", "replay", "--corrections", str(path), "--all"]) == 1
    told = capsys.readouterr().out
    assert "orders: 1 accepted, 0 duplicates, 1 failed again" in told and "customers: " in told


def test_the_letter_that_failed_is_named_where_one_was_meant(
    home: Bench, tmp_path: Path, contracts: dict[str, Contract], capsys: pytest.CaptureFixture[str]
) -> None:
    home.put_orders("2026-01-01|uk", *[GOOD.replace("489434", str(489435 + n)) for n in range(40)], "x", "y")
    home.ingest(contracts["orders"])
    first, second = (letter.dead_letter_id for letter in letters(home.lake, Choice()))
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"dead_letter_id": second, "corrected": "still bad"}) + "\n")
    for asked, failed, which in (
        (["--source", "orders"], 2, "--source orders"),
        ([first[:8]], 1, first[:8]),
        (["--corrections", str(path)], 1, second),
        ([first, "--corrections", str(path)], 2, "--source orders"),
    ):
        assert main(["dead-letters", "replay", *asked]) == 1
        assert capsys.readouterr().out == (
            f"orders: 0 accepted, 0 duplicates, {failed} failed again (`sluice dead-letters show {which}` says why)\n"
        )


def test_a_mistyped_source_is_told(
    home: Bench, tmp_path: Path, contracts: dict[str, Contract], capsys: pytest.CaptureFixture[str]
) -> None:
    home.put_orders("2026-01-01|uk", *[GOOD.replace("489434", str(489435 + n)) for n in range(40)], "x")
    home.ingest(contracts["orders"])
    for verb in (
        ["dead-letters", "list"],
        ["dead-letters", "show"],
        ["dead-letters", "replay"],
        ["dead-letters", "discard", "--why", "x"],
        ["dead-letters", "export", str(tmp_path / "letters.csv")],
    ):
        assert main([*verb, "--source", "ordrs"]) == 1
        assert capsys.readouterr().err == "sluice: There is no source 'ordrs'. Did you mean 'orders'?\n"
    assert main(["contracts", "drift", "--source", "zzz"]) == 1
    told = "sluice: There is no contract 'zzz'. There is: customers, events, exchange_rates, orders, products.\n"
    assert capsys.readouterr().err == told
    # A source without dead letters is none the less one.
    assert main(["dead-letters", "list", "--source", "customers"]) == 1
    assert capsys.readouterr().out == "No dead letter matches.\n"
    # Letters outlive their contracts.
    home.lake.write(lambda con: con.execute("UPDATE ops.dead_letters SET source = 'gone'"), "a contract removed")
    assert main(["dead-letters", "show", "--source", "gone"]) == 0
    assert "failed once, 20" in capsys.readouterr().out
