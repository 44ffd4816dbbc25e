-- Grain: one event that the next build of fct_events will have otherwise than what is published: as it is now (new, or
-- changed), and, is_gone, as it was (changed, or there no more). The other live views put these in the place of those.
with batches as (

    -- Of which bronze has other rows than it had: read since, or replayed into, superseded, erased from.
    select
        batch_id,
        batch_id in (select batch_id from ops.ledger at (version => {{ published }})) as is_old
    from (
        select
            batch_id,
            rows_accepted,
            superseded_by,
            rows_erased,
            rows_emptied
        from ops.ledger
        where source = 'events'
        except
        select
            batch_id,
            rows_accepted,
            superseded_by,
            rows_erased,
            rows_emptied
        from ops.ledger at (version => {{ published }})
        where source = 'events'
    )

),

touched as (

    select event_id from bronze.events
    where _batch_id in (select batch_id from batches)
    union
    select event_id from bronze.events at (version => {{ published }})
    where _batch_id in (select batch_id from batches where is_old)

),

-- Delivered twice, an event counts once, as in stg_events.
as_it_is as (

    select
        event_id,
        event_type,
        channel,
        visitor_id,
        quantity,
        event_ts
    from bronze.events
    where event_id in (select event_id from touched)
    qualify
        row_number() over (
            partition by event_id
            order by event_ts, _partition_key, _file, _line
        ) = 1

),

as_it_was as (

    select
        event_id,
        event_type,
        channel,
        visitor_id,
        quantity,
        event_ts
    from gold.fct_events at (version => {{ published }})
    where event_id in (select event_id from touched)

)

select
    *,
    false as is_gone
from (
    select * from as_it_is
    except
    select * from as_it_was
)

union all

select
    *,
    true as is_gone
from (
    select * from as_it_was
    except
    select * from as_it_is
)
