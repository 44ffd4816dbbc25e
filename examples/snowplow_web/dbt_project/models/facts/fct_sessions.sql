{{ config(
    materialized='healed',
    unique_key='domain_sessionid',
    event_time='start_tstamp',
    changes_in=[{'table': 'gold.fct_web_events', 'rows': 'domain_sessionid'}]
) }}
-- Grain: one session, as the tracker counts them, in which somebody was on a page.
with events as (

    select * from {{ ref('fct_web_events') }}
    where {{ touched_rows() }}

),

sessions as (

    select
        domain_sessionid,
        -- A page had been open for five seconds, or longer, before it sent its first ping.
        min(case
            when event_name = 'page_ping' then derived_tstamp - interval '5 seconds'
            else derived_tstamp
        end) as start_tstamp,
        max(derived_tstamp) as end_tstamp,
        count(distinct page_view_id) filter (where is_presence) as page_views,
        {{ engaged_seconds() }} as engaged_time_in_s,
        count(*) as total_events
    from events
    group by domain_sessionid

),

pages as (

    select *
    from events
    where is_presence

),

first_pages as (

    select *
    from pages
    qualify
        row_number() over (
            partition by domain_sessionid
            order by derived_tstamp, dvce_created_tstamp, event_id
        ) = 1

),

last_pages as (

    select *
    from pages
    qualify
        row_number() over (
            partition by domain_sessionid
            order by derived_tstamp desc, dvce_created_tstamp desc, event_id desc
        ) = 1

)

select
    -- keys
    firsts.app_id,
    firsts.platform,
    sessions.domain_sessionid,
    firsts.domain_sessionidx,

    -- when
    sessions.start_tstamp,
    sessions.end_tstamp,

    -- who
    firsts.user_id,
    firsts.domain_userid,
    firsts.network_userid,

    -- how much
    sessions.page_views,
    sessions.engaged_time_in_s,
    sessions.total_events,
    -- The usual definition: two pages, or two times ten seconds on one.
    sessions.page_views >= 2 or sessions.engaged_time_in_s >= 20 as is_engaged,
    date_diff('second', sessions.start_tstamp, sessions.end_tstamp) as absolute_time_in_s,

    -- first and last page
    firsts.page_title as first_page_title,
    firsts.page_url as first_page_url,
    firsts.page_urlscheme as first_page_urlscheme,
    firsts.page_urlhost as first_page_urlhost,
    firsts.page_urlpath as first_page_urlpath,
    firsts.page_urlquery as first_page_urlquery,
    firsts.page_urlfragment as first_page_urlfragment,
    lasts.page_title as last_page_title,
    lasts.page_url as last_page_url,
    lasts.page_urlscheme as last_page_urlscheme,
    lasts.page_urlhost as last_page_urlhost,
    lasts.page_urlpath as last_page_urlpath,
    lasts.page_urlquery as last_page_urlquery,
    lasts.page_urlfragment as last_page_urlfragment,

    -- as the session began
    firsts.page_referrer,
    firsts.refr_urlscheme,
    firsts.refr_urlhost,
    firsts.refr_urlpath,
    firsts.refr_urlquery,
    firsts.refr_urlfragment,
    firsts.refr_medium,
    firsts.refr_source,
    firsts.refr_term,
    firsts.mkt_medium,
    firsts.mkt_source,
    firsts.mkt_term,
    firsts.mkt_content,
    firsts.mkt_campaign,
    firsts.mkt_clickid,
    firsts.mkt_network,
    firsts.geo_country,
    firsts.geo_region,
    firsts.geo_region_name,
    firsts.geo_city,
    firsts.geo_zipcode,
    firsts.geo_latitude,
    firsts.geo_longitude,
    firsts.geo_timezone,
    firsts.useragent,
    firsts.br_lang,
    firsts.br_renderengine,
    firsts.os_timezone,
    firsts.dvce_screenwidth || 'x' || firsts.dvce_screenheight as screen_resolution,

    -- as it ended
    lasts.geo_country as last_geo_country,
    lasts.geo_region_name as last_geo_region_name,
    lasts.geo_city as last_geo_city,
    lasts.br_lang as last_br_lang
from sessions
inner join first_pages as firsts on sessions.domain_sessionid = firsts.domain_sessionid
inner join last_pages as lasts on sessions.domain_sessionid = lasts.domain_sessionid
