-- Grain: one event that has come since what is published, as far as fct_events will have it: delivered twice, it counts
-- once, as in stg_events. The other live views join these to what is published.
select
    event_id,
    event_type,
    channel,
    visitor_id,
    quantity,
    event_ts
from bronze.events
where
    _batch_id not in (select batch_id from ops.ledger at (version => {{ published }}))
    and event_id not in (select event_id from gold.fct_events at (version => {{ published }}))
qualify
    row_number() over (
        partition by event_id
        order by event_ts, _partition_key, _file, _line
    ) = 1
