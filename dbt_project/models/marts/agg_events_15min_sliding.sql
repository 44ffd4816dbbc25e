{{ config(
    materialized='healed',
    unique_key=['window_start', 'event_type', 'channel'],
    slice_by='window_start',
    changes_in=[{'table': 'gold.fct_events', 'slices': window_starts('event_ts', 3)}]
) }}
-- Grain: one window of 15 minutes, [window_start, window_end), x event type x channel with an event. One
-- begins every 5 minutes: an event lies in three.
with events as (

    select
        unnest([
            {{ window_starts('event_ts', 3) | join(',\n            ') }}
        ]) as window_start,
        event_type,
        coalesce(channel, 'unknown') as channel,
        visitor_id,
        quantity
    from {{ ref('fct_events') }}
    where {{ touched_rows() }}

)

select
    -- keys
    window_start,
    window_start + interval '15 minutes' as window_end,
    {{ date_key('window_start') }} as date_key,
    event_type,
    channel,

    -- what happened in it
    count(*) as events,
    count(distinct visitor_id) as visitors,
    cast(coalesce(sum(quantity), 0) as bigint) as quantity
from events
group by window_start, event_type, channel
