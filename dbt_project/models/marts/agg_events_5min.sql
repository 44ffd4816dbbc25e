{{ config(
    materialized='healed',
    unique_key=['window_start', 'event_type', 'channel'],
    slice_by='window_start',
    changes_in=[{'table': 'gold.fct_events', 'slices': window_starts('event_ts')}]
) }}
-- Grain: one window of 5 minutes, [window_start, window_end), x event type x channel with an event.
with events as (

    select
        {{ window_start('event_ts') }} as window_start,
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
    window_start + interval '5 minutes' as window_end,
    {{ date_key('window_start') }} as date_key,
    event_type,
    channel,

    -- what happened in it
    count(*) as events,
    count(distinct visitor_id) as visitors,
    cast(coalesce(sum(quantity), 0) as bigint) as quantity
from events
group by window_start, event_type, channel
