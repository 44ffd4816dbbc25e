"""What dbt's results say of a build."""

from assets.warehouse import account_of_part, failures, has_every_test

MODEL = {"unique_id": "model.sluice.mart_orders_wide", "status": "error", "message": "Runtime Error: boom"}
SKIPPED = {"unique_id": "model.sluice.other", "status": "skipped", "message": None}
FAILED = {"unique_id": "test.sluice.books_balance.abc", "status": "fail", "message": "Got 1 result"}
PASSED = {"unique_id": "test.sluice.unique_x.def", "status": "pass", "message": None}


def test_what_did_not_go_well_is_named_with_its_message() -> None:
    assert failures([MODEL, SKIPPED, FAILED, PASSED]) == [
        ("mart_orders_wide", "Runtime Error: boom"),
        ("books_balance", "Got 1 result"),
    ]
    assert failures([PASSED]) == []


def test_a_model_that_failed_in_a_part_is_not_forgotten_when_its_former_table_passes_every_test() -> None:
    account = account_of_part([MODEL, FAILED], [PASSED])
    assert failures(account) == [("mart_orders_wide", "Runtime Error: boom")]
    # The part's tests are superseded by those of the whole.
    assert account == [MODEL, PASSED]


def test_a_build_of_everything_without_a_test_is_not_tested_whole() -> None:
    tests = {r["unique_id"]: {"resource_type": "test"} for r in (FAILED, PASSED)}
    manifest = {"nodes": {**tests, MODEL["unique_id"]: {"resource_type": "model"}}}
    assert has_every_test([MODEL, FAILED, PASSED | {"status": "skipped"}], manifest)
    assert not has_every_test([MODEL, FAILED], manifest)
    assert not has_every_test([MODEL], manifest)
