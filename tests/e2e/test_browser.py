"""What a person sees and does in Dagster's UI, in a real browser: graph, load by hand, checks green and red.

Nothing starts by itself here: the sensors are stopped before the first file is delivered. The shipped UI has no test
ids, so roles and texts are looked for; what a run did is asked through GraphQL and read from the lake.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect
from running import LOCATION, Platform, Run, Shop

import sluice
from resources.partitions import RANGE_END, RANGE_START
from sluice.simulation import LedgerTruth

pytestmark = pytest.mark.browser

# Also take screenshots, and keep them in this folder.
SCREENSHOTS = os.environ.get("SLUICE_SCREENSHOTS")
MOST_BYTES = 300_000

WIDE = {"width": 1440, "height": 860}
# Of the asset graph from top to bottom.
BROAD = {"width": 3400, "height": 1100}
MARGIN = 30

GROUPS = ("bronze", "silver", "gold_dimensions", "gold_facts", "gold_marts", "published")
NODES = ("orders", "products", "customers", "events", "stg_orders", "fct_order_lines", "mart_daily_sales", "published")
GREEN = ("books_balance", "rejected_share", "files_readable")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, shop: Shop, browser: Browser) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("browser"), shop.start, shop.end).left_alone() as platform:
        yield platform


@pytest.fixture
def ui(platform: Platform, browser: Browser) -> Iterator[Page]:
    page = browser.new_page(base_url=platform.url, viewport=WIDE)
    page.set_default_timeout(30_000)
    # The first load of a page fetches some megabytes of scripts, on a machine that also runs the platform.
    expect.set_options(timeout=20_000)
    yield page
    page.close()


def test_the_asset_graph_shows_every_layer(ui: Page) -> None:
    open_graph(ui)
    for group in GROUPS:
        expect(node(ui, group).first, f"no group {group} in the asset graph").to_be_visible()
    for name in NODES:
        expect(node(ui, name).last, f"no node {name} in the asset graph").to_be_visible()


def test_a_partition_materialized_by_hand_passes_its_checks(ui: Page, platform: Platform, shop: Shop) -> None:
    day = shop.start.isoformat()
    deliver(platform, shop, "cdc/products", day)

    ui.goto("/assets/bronze/products")
    run = materialize(ui, platform, ui.get_by_role("button", name="Materialize…"), day)

    assert run.status == "SUCCESS", platform.state()
    assert run.tags["dagster/partition"] == day
    for check in GREEN:
        assert result_of(ui, "bronze/products", check) == "Passed", platform.state()
    entry = ui.get_by_text("Succeeded")
    # The list of checks says that they succeeded.
    expect(entry.nth(len(GREEN) - 1)).to_be_visible()
    shoot(ui, "checks-green")

    truth = shop.truth.ledger_by_partition["products"][day]
    with platform.lake.reading() as con:
        rows = con.execute(
            "SELECT count(*), count(DISTINCT _lsn), count(DISTINCT stock_code) FROM bronze.products WHERE date = ?",
            [day],
        ).fetchone()
        booked = con.execute(
            "SELECT rows_read, rows_accepted, rows_dead_lettered, rows_duplicate FROM ops.ledger "
            "WHERE source = 'products' AND partition_key = ? AND run_id = ?",
            [day, run.run_id],
        ).fetchall()
    assert [LedgerTruth(*row) for row in booked] == [truth]
    assert rows is not None
    assert rows[:2] == (truth.accepted, truth.accepted), "bronze.products does not hold the rows of the shop"


def test_a_broken_file_turns_its_check_red_and_stops_what_is_downstream(
    ui: Page, platform: Platform, shop: Shop
) -> None:
    day = shop.spare_day.isoformat()
    (whole,) = (shop.files / "cdc/products" / f"date={shop.start}").iterdir()
    content = whole.read_bytes()
    file = f"cdc/products/date={day}/{whole.name}"
    platform.drop(file, content[: len(content) // 2])

    ui.goto("/asset-groups")
    node(ui, "published").first.wait_for()
    ui.locator(".CodeMirror").first.click()
    ui.keyboard.type('key:"bronze/products"+ and not group:"ops"')
    ui.keyboard.press("Enter")
    expect(node(ui, "ops"), "the graph still shows what was not asked for").to_have_count(0)
    run = materialize(ui, platform, ui.get_by_role("button", name="Materialize all"), day)

    assert {"bronze/products", "silver/stg_product_changes", "gold/fct_order_lines", "published"} <= set(run.assets)
    assert run.status == "FAILURE", platform.state()
    events = platform.events(run.run_id)
    begun = [e["stepKey"] for e in events if e["__typename"] == "ExecutionStepStartEvent"]
    assert begun == ["bronze__products"], f"steps ran past a red check: {begun}\n{platform.state()}"
    assert not [e for e in events if e["__typename"] == "MaterializationEvent"], "the run has materialized something"
    assert platform.publication() is None, "something is published"

    assert result_of(ui, "bronze/products", "rejected_share") == "Failed"
    assert result_of(ui, "bronze/products", "files_readable") == "Failed"
    shoot(ui, "check-red")
    ui.get_by_text("Show Markdown").first.click()
    told = ui.get_by_role("dialog")
    expect(told, "the check does not name the broken file").to_contain_text(file)

    # Mended by sending it anew; what was red before does not stand in the way.
    platform.drop(file, content)
    again = platform.finished(platform.launch("ingest_products", [], {"dagster/partition": day}))
    assert again.status == "SUCCESS", platform.state()
    assert result_of(ui, "bronze/products", "files_readable") == "Passed"
    (platform.landing / file).unlink()


def test_a_build_started_in_the_browser_is_published_and_shows_its_numbers(
    ui: Page, platform: Platform, shop: Shop
) -> None:
    platform.drop_all(shop.files)
    first, last = shop.start.isoformat(), shop.spare_day.isoformat()
    loads = (
        (["bronze/products", "bronze/customers", "bronze/events"], {RANGE_START: first, RANGE_END: last}),
        (["bronze/orders"], {RANGE_START: f"{first}|uk", RANGE_END: f"{last}|row"}),
    )
    for run_id in [platform.launch("__ASSET_JOB", assets, tags) for assets, tags in loads]:
        assert platform.finished(run_id).status == "SUCCESS", platform.state()

    ui.goto(f"/locations/{LOCATION}/jobs/build_warehouse")
    before = {r.run_id for r in platform.runs()}
    ui.get_by_role("button", name="Materialize all").click()
    # Sources that have never delivered are asked about: their tables are empty, and that is no fault.
    ui.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    run = new_run(platform, before)
    assert run.status == "SUCCESS", platform.state()
    publication = platform.publication()
    assert publication is not None, platform.state()
    assert publication.run_id == run.run_id

    with sluice.connect(platform.settings) as con:
        lines, revenue = con.sql("SELECT count(*), sum(line_amount) FROM fct_order_lines").fetchall()[0]
        rows, net = con.sql("SELECT count(*), sum(net_amount) FROM mart_daily_sales").fetchall()[0]
    assert lines == shop.truth.facts["order_lines"]
    assert revenue == net == Decimal(str(shop.truth.facts["revenue"]))

    ui.goto("/assets/gold/mart_daily_sales")
    expect(ui.get_by_text(re.compile(r"^Row count"))).to_be_visible()
    assert re.search(rf"Row count\n{rows}\n", ui.locator("body").inner_text()), "the page shows another row count"
    ui.get_by_text("Show Markdown").first.click()
    dialog = ui.get_by_role("dialog")
    day, region = next(iter(shop.truth.revenue_by_day_region)).split("|")
    expect(dialog, "the preview lacks the day's net amount").to_contain_text(
        shop.truth.revenue_by_day_region[f"{day}|{region}"]
    )
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    ui.get_by_text("Show Markdown").last.click()
    expect(dialog.locator("img"), "there is no chart").to_be_visible()
    shoot(ui, "mart")

    open_graph(ui)
    boxes = [box for each in ui.locator("svg foreignObject").all() if (box := each.bounding_box())]
    left, top = (min(box[side] for box in boxes) - MARGIN for side in ("x", "y"))
    right, bottom = (max(box[a] + box[b] for box in boxes) + MARGIN for a, b in (("x", "width"), ("y", "height")))
    shoot(ui, "asset-graph", clip={"x": left, "y": top, "width": right - left, "height": bottom - top})


def open_graph(ui: Page) -> None:
    """The whole asset graph, every group unfolded, small enough to be seen at once."""
    ui.set_viewport_size(BROAD)
    ui.goto("/asset-groups")
    # As the button beside the graph does.
    ui.evaluate("localStorage.setItem('asset-graph-direction', JSON.stringify('vertical'))")
    ui.reload()
    node(ui, "published").first.wait_for()
    if ui.get_by_text("Hide navigation").is_visible():
        ui.get_by_text("Hide navigation").click()
    ui.keyboard.press("Alt+e")
    ui.wait_for_url("**expanded=**")
    ui.mouse.move(BROAD["width"] / 2, BROAD["height"] / 2)
    ui.keyboard.down("Control")
    # Nodes out of sight are not in the page at all.
    for _ in range(30):
        ui.wait_for_timeout(400)
        shown = set(ui.locator("svg foreignObject").all_text_contents())
        if {*GROUPS, *NODES, "landing_inventory", "mart_orders_wide"} <= shown:
            break
        ui.mouse.wheel(0, 40)
    # Those at the rim may be half in sight.
    ui.mouse.wheel(0, 25)
    ui.keyboard.up("Control")
    ui.wait_for_timeout(1000)


def node(ui: Page, name: str) -> Locator:
    """Nodes and groups of this name in the graph."""
    return ui.locator("svg foreignObject").get_by_text(name, exact=True)


def deliver(platform: Platform, shop: Shop, source: str, day: str) -> None:
    """Deliver what the shop has of one source for one day."""
    for path in (shop.files / source / f"date={day}").rglob("*.*"):
        platform.drop(path.relative_to(shop.files).as_posix(), path.read_bytes())


def materialize(ui: Page, platform: Platform, button: Locator, partition: str) -> Run:
    """Press the button, choose one partition, launch, and wait for the run's end."""
    before = {r.run_id for r in platform.runs()}
    button.first.click()
    dialog = ui.get_by_role("dialog")
    box = dialog.get_by_placeholder("ex:")
    confirm = dialog.get_by_role("button", name="Confirm")
    # Asked first when something upstream has never been materialized.
    expect(box.or_(confirm).first).to_be_visible()
    if confirm.is_visible():
        confirm.click()
    box.first.click()
    for key in ("Control+a", "Delete"):
        box.first.press(key)
    box.first.press_sequentially(partition)
    box.first.press("Enter")
    expect(dialog.get_by_text("1 partition", exact=True)).to_be_visible()
    dialog.get_by_role("button", name=re.compile("^Launch")).last.click()
    return new_run(platform, before)


def new_run(platform: Platform, before: set[str]) -> Run:
    """The run that is there now and was not before, once it has ended."""

    def begun() -> Run | None:
        return next((r for r in platform.runs() if r.run_id not in before), None)

    return platform.finished(platform.wait_for(begun, "a run has been launched", 30, every=0.5).run_id)


def result_of(ui: Page, asset: str, check: str) -> str:
    """The last result of a check as its page shows it: Passed, Failed or Warning."""
    ui.goto(f"/assets/{asset}?view=checks&checkDetail={check}")
    shown = ui.get_by_text(re.compile(r"^(Passed|Failed|Warning)$")).last
    ui.get_by_text("Evaluation result").wait_for()
    expect(ui.get_by_text("This is a blocking asset check")).to_be_visible()
    shown.wait_for()
    found = re.search(r"Evaluation result\n(\w+)\n", ui.locator("body").inner_text())
    return found[1] if found else "not to be found"


def shoot(ui: Page, name: str, clip: FloatRect | None = None) -> None:
    """Keep a screenshot for the documentation, if asked to."""
    if not SCREENSHOTS:
        return
    ui.wait_for_timeout(700)  # animations end
    path = Path(SCREENSHOTS) / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    ui.screenshot(path=path, clip=clip)
    assert path.stat().st_size < MOST_BYTES, f"{path} is too big for the repository"
