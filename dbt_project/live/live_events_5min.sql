-- Grain: one window of 5 minutes, [window_start, window_end), x event type x channel with an event, up to this moment.
-- What is published, but for the windows in which an event came, changed or went since: those are counted again.
with changed as (

    select * from gold.live_arrivals

),

windows as (

    select distinct time_bucket(interval '5 minutes', event_ts) as window_start
    from changed

),

events as (

    select
        time_bucket(interval '5 minutes', event_ts) as window_start,
        event_type,
        coalesce(channel, 'unknown') as channel,
        visitor_id,
        quantity
    from (
        select
            event_id,
            event_type,
            channel,
            visitor_id,
            quantity,
            event_ts
        from changed
        where not is_gone
        union all by name
        select
            event_id,
            event_type,
            channel,
            visitor_id,
            quantity,
            event_ts
        from gold.fct_events at (version => {{ published }})
        where
            time_bucket(interval '5 minutes', event_ts)
            in (select window_start from windows)
            and event_id not in (select event_id from changed)
    )

)

select
    window_start,
    window_end,
    event_type,
    channel,
    events,
    visitors,
    quantity,
    false as is_live
from gold.agg_events_5min at (version => {{ published }})
where window_start not in (select window_start from windows)

union all

select
    window_start,
    window_start + interval '5 minutes' as window_end,
    event_type,
    channel,
    count(*) as events,
    count(distinct visitor_id) as visitors,
    cast(coalesce(sum(quantity), 0) as bigint) as quantity,
    true as is_live
from events
group by window_start, event_type, channel
