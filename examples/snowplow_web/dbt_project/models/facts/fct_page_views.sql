{{ config(
    materialized='healed',
    unique_key='page_view_id',
    event_time='start_tstamp',
    changes_in=[{'table': 'gold.fct_web_events', 'rows': 'domain_sessionid'}]
) }}
-- Grain: one page view (page_view_id) that was sent; the first event of it counts.
with events as (

    select * from {{ ref('fct_web_events') }}
    where {{ touched_rows() }}

),

views as (

    select *
    from events
    where event_name = 'page_view'
    qualify
        row_number() over (
            partition by page_view_id
            order by derived_tstamp, dvce_created_tstamp, event_id
        ) = 1

),

-- A ping says that the visitor did something on the page in the ten seconds before.
pings as (

    select
        domain_sessionid,
        page_view_id,
        max(derived_tstamp) as last_ping_at,
        {{ engaged_seconds() }} as engaged_time_in_s,
        max(pp_xoffset_max) as scrolled_x,
        max(pp_yoffset_max) as scrolled_y
    from events
    where event_name = 'page_ping'
    group by domain_sessionid, page_view_id

),

joined as (

    select
        views.*,
        coalesce(pings.engaged_time_in_s, 0) as engaged_time_in_s,
        views.derived_tstamp as start_tstamp,
        greatest(views.derived_tstamp, pings.last_ping_at) as end_tstamp,
        coalesce(pings.scrolled_x, 0) as horizontal_pixels_scrolled,
        coalesce(pings.scrolled_y, 0) as vertical_pixels_scrolled
    from views
    left join pings
        on
            views.page_view_id = pings.page_view_id
            and views.domain_sessionid = pings.domain_sessionid

)

select
    -- keys
    page_view_id,
    event_id,
    app_id,
    platform,
    user_id,
    domain_userid,
    network_userid,
    domain_sessionid,
    domain_sessionidx,

    -- where in the session
    row_number() over (
        partition by domain_sessionid
        order by derived_tstamp, dvce_created_tstamp, event_id
    ) as page_view_in_session_index,
    count(*) over (partition by domain_sessionid) as page_views_in_session,

    -- when
    dvce_created_tstamp,
    collector_tstamp,
    derived_tstamp,
    start_tstamp,
    end_tstamp,
    engaged_time_in_s,
    date_diff('second', start_tstamp, end_tstamp) as absolute_time_in_s,

    -- how much of the page was seen
    horizontal_pixels_scrolled,
    vertical_pixels_scrolled,
    {{ share_seen('horizontal_pixels_scrolled', 'br_viewwidth', 'doc_width') }}
        as horizontal_percentage_scrolled,
    {{ share_seen('vertical_pixels_scrolled', 'br_viewheight', 'doc_height') }}
        as vertical_percentage_scrolled,
    doc_width,
    doc_height,

    -- page, referrer, campaign, place, client
    page_title,
    page_url,
    page_urlscheme,
    page_urlhost,
    page_urlpath,
    page_urlquery,
    page_urlfragment,
    page_referrer,
    refr_urlscheme,
    refr_urlhost,
    refr_urlpath,
    refr_urlquery,
    refr_urlfragment,
    refr_medium,
    refr_source,
    refr_term,
    mkt_medium,
    mkt_source,
    mkt_term,
    mkt_content,
    mkt_campaign,
    mkt_clickid,
    mkt_network,
    geo_country,
    geo_region,
    geo_region_name,
    geo_city,
    geo_zipcode,
    geo_latitude,
    geo_longitude,
    geo_timezone,
    useragent,
    br_lang,
    br_renderengine,
    os_timezone,
    br_viewwidth,
    br_viewheight,
    br_colordepth,
    dvce_screenwidth || 'x' || dvce_screenheight as screen_resolution
from joined
