"""Web events of a tracker: page views, sessions and visitors as the makers of the tracker expect them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from examples.running import Example, Expectation, deliver_by_day


def deliver(data: Path, landing: Path) -> None:
    """Deliver the events day by day, each in the folder of the day it was received."""
    source = data / "source" / "snowplow_web_events.parquet"
    deliver_by_day(source, landing / "web_events", "collector_tstamp")


# What comes of looking something up (the name of a country, what a browser calls itself by, a robot), or of what each
# company defines for itself (groups of campaigns and pages, conversions). Beginnings of names of columns.
_ELSEWHERE = (
    "agent_", "br_lang_name", "category", "content_group", "cv_", "default_channel_group", "device_",
    "first_br_lang_name", "first_geo_continent", "first_geo_country_name", "geo_continent", "geo_country_name",
    "last_br_lang_name", "last_geo_continent", "last_geo_country_name", "layout_engine_", "mkt_source_platform",
    "operating_system_", "os_family", "os_major", "os_minor", "os_patch", "os_version", "primary_impact", "reason",
    "spider_or_robot", "useragent_",
)  # fmt: skip
_LEFT_OUT = (
    "user_ipaddress",  # personal, and not taken in
    "event_counts",  # a text of JSON: events by their names
    "is_engaged",  # there every session with a view of a page, for that is a conversion, and one more by its id
    "stitched_user_id",  # who a visitor turned out to be later
)


EXAMPLE = Example(
    name="snowplow_web",
    start=date(2020, 7, 3),
    deliver=deliver,
    left_out=_ELSEWHERE + _LEFT_OUT,
    expected=(
        Expectation("fct_page_views", "snowplow_web_page_views_expected.parquet", ("page_view_id",), {}, {}),
        Expectation(
            "fct_sessions",
            "snowplow_web_sessions_expected.parquet",
            ("domain_sessionid",),
            {"referrer": "page_referrer"},
            {},
        ),
        Expectation(
            "mart_users",
            "snowplow_web_users_expected.parquet",
            ("domain_userid",),
            {"referrer": "page_referrer"},
            {},
        ),
        Expectation(
            "mart_overlong_sessions",
            "snowplow_web_base_quarantined_sessions_expected.parquet",
            ("session_id",),
            {},
            # Its second event came eight months after the first.
            {("d21c000a5953335da6cd125ac349135ae6524b04dd4b107a263dfb1de131b12d",): frozenset()},
        ),
    ),
)
