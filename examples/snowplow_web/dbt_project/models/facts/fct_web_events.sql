{{ config(
    materialized='healed',
    unique_key='event_id',
    event_time='derived_tstamp',
    changes_in=[{'table': 'bronze.web_events', 'rows': 'domain_sessionid'}]
) }}
-- Grain: one event of a session in which somebody was on a page, up to three days after the session began.
with events as (

    select * from {{ ref('stg_web_events') }}
    where {{ touched_rows() }}

),

-- Before the cut: a session is whose it was first, and began when its first event was received.
begun as (

    select
        * exclude (domain_userid),
        first_value(domain_userid) over received as domain_userid,
        min(collector_tstamp) over session as session_received_at,
        max(collector_tstamp) over session as session_last_received_at
    from events
    window
        session as (partition by domain_sessionid),
        received as (partition by domain_sessionid order by collector_tstamp, derived_tstamp, event_id)

)

select
    * exclude (session_received_at, session_last_received_at),
    session_last_received_at > session_received_at + interval '3 days' as is_of_overlong_session
from begun
where collector_tstamp <= session_received_at + interval '3 days'
qualify bool_or(is_presence) over (partition by domain_sessionid)
