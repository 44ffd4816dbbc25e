{{ config(
    materialized='healed',
    unique_key='domain_userid',
    slice_by='domain_userid',
    changes_in=[{'table': 'gold.fct_sessions'}]
) }}
-- Grain: one visitor (domain_userid) with a session.
with sessions as (

    select * from {{ ref('fct_sessions') }}
    where {{ touched_rows() }} and domain_userid is not null

),

users as (

    select
        domain_userid,
        min(start_tstamp) as start_tstamp,
        max(end_tstamp) as end_tstamp,
        cast(sum(page_views) as bigint) as page_views,
        count(*) as sessions,
        cast(sum(engaged_time_in_s) as bigint) as engaged_time_in_s
    from sessions
    group by domain_userid

),

-- Of sessions that began, or ended, at one instant the one with the greater id counts.
first_sessions as (

    select *
    from sessions
    qualify
        row_number() over (
            partition by domain_userid
            order by start_tstamp asc, domain_sessionid desc
        ) = 1

),

last_sessions as (

    select *
    from sessions
    qualify
        row_number() over (
            partition by domain_userid
            order by end_tstamp desc, domain_sessionid desc
        ) = 1

)

select
    -- keys
    firsts.user_id,
    users.domain_userid,
    firsts.network_userid,

    -- when and how much
    users.start_tstamp,
    users.end_tstamp,
    users.page_views,
    users.sessions,
    users.engaged_time_in_s,

    -- the first page of the first session, the last page of the last
    firsts.first_page_title,
    firsts.first_page_url,
    firsts.first_page_urlscheme,
    firsts.first_page_urlhost,
    firsts.first_page_urlpath,
    firsts.first_page_urlquery,
    firsts.first_page_urlfragment,
    lasts.last_page_title,
    lasts.last_page_url,
    lasts.last_page_urlscheme,
    lasts.last_page_urlhost,
    lasts.last_page_urlpath,
    lasts.last_page_urlquery,
    lasts.last_page_urlfragment,

    -- where they were
    firsts.geo_country as first_geo_country,
    firsts.geo_city as first_geo_city,
    firsts.geo_region_name as first_geo_region_name,
    firsts.br_lang as first_br_lang,
    lasts.last_geo_country,
    lasts.last_geo_city,
    lasts.last_geo_region_name,
    lasts.last_br_lang,

    -- where they came from first
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
    firsts.mkt_network
from users
inner join first_sessions as firsts on users.domain_userid = firsts.domain_userid
inner join last_sessions as lasts on users.domain_userid = lasts.domain_userid
