-- Grain: one session of one visitor, up to this moment: 30 minutes without an event end it, as in fct_sessions.
-- What is published, but for the visitors of whom an event came, changed or went since: their sessions are made again.
with changed as (

    select * from gold.live_arrivals

),

events as (

    select
        event_id,
        visitor_id,
        event_type,
        event_ts
    from changed
    where not is_gone
    union all by name
    select
        event_id,
        visitor_id,
        event_type,
        event_ts
    from gold.fct_events at (version => {{ published }})
    where
        visitor_id in (select visitor_id from changed)
        and event_id not in (select event_id from changed)

),

placed as (

    select
        *,
        coalesce(event_ts >= lag(event_ts) over visitor + interval '30 minutes', true) as is_first
    from events
    window visitor as (partition by visitor_id order by event_ts, event_id)

),

numbered as (

    select
        *,
        count(*) filter (where is_first) over (
            partition by visitor_id
            order by event_ts, event_id
            rows between unbounded preceding and current row
        ) as session_number
    from placed

)

select
    visitor_id,
    started_at,
    last_event_at,
    events,
    product_views,
    cart_additions,
    purchases,
    false as is_live
from gold.fct_sessions at (version => {{ published }})
where visitor_id not in (select visitor_id from changed)

union all

select
    visitor_id,
    min(event_ts) as started_at,
    max(event_ts) as last_event_at,
    count(*) as events,
    count(*) filter (where event_type = 'view') as product_views,
    count(*) filter (where event_type = 'add_to_cart') as cart_additions,
    count(*) filter (where event_type = 'purchase') as purchases,
    true as is_live
from numbered
group by visitor_id, session_number
