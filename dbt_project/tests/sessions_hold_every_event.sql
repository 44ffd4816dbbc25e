-- The sessions of a visitor hold all events of the visitor; none begins before the one in front has expired.
with events as (

    select
        visitor_id,
        count(*) as events,
        min(event_ts) as first_at,
        max(event_ts) as last_at
    from {{ ref('fct_events') }}
    group by visitor_id

),

apart as (

    select
        *,
        lag(expires_at) over (partition by visitor_id order by started_at) as expired_before
    from {{ ref('fct_sessions') }}

),

sessions as (

    select
        visitor_id,
        sum(events) as events,
        min(started_at) as first_at,
        max(last_event_at) as last_at,
        count(*) filter (where started_at < expired_before) as too_early
    from apart
    group by visitor_id

)

select
    coalesce(events.visitor_id, sessions.visitor_id) as visitor_id,
    events.events as of_events,
    sessions.events as of_sessions,
    sessions.too_early
from events
full outer join sessions on events.visitor_id = sessions.visitor_id
where
    events.events is distinct from sessions.events
    or events.first_at is distinct from sessions.first_at
    or events.last_at is distinct from sessions.last_at
    or sessions.too_early > 0
