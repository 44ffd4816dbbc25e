-- The windows of 5 minutes hold each event once, those of 15 that begin every 5 three times, by type.
with events as (

    select
        event_type,
        count(*) as events,
        coalesce(sum(quantity), 0) as quantity
    from {{ ref('fct_events') }}
    group by event_type

),

tumbling as (

    select
        event_type,
        sum(events) as events,
        sum(quantity) as quantity
    from {{ ref('agg_events_5min') }}
    group by event_type

),

sliding as (

    select
        event_type,
        sum(events) as events,
        sum(quantity) as quantity
    from {{ ref('agg_events_15min_sliding') }}
    group by event_type

)

select
    coalesce(events.event_type, tumbling.event_type, sliding.event_type) as event_type,
    events.events as of_events,
    tumbling.events as of_tumbling,
    sliding.events as of_sliding
from events
full outer join tumbling on events.event_type = tumbling.event_type
full outer join sliding on coalesce(events.event_type, tumbling.event_type) = sliding.event_type
where
    events.events is distinct from tumbling.events
    or events.quantity is distinct from tumbling.quantity
    or 3 * events.events is distinct from sliding.events
    or 3 * events.quantity is distinct from sliding.quantity
