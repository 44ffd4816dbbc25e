-- Grain: one window of 5 minutes, [window_start, window_end), x event type x channel with an event, up to this moment.
-- What is published, but for the windows that something has streamed into since: those are counted again.
with streamed as (

    select * from gold.live_arrivals

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
        from streamed
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
            in (select time_bucket(interval '5 minutes', event_ts) from streamed)
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
where window_start not in (select window_start from events)

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
