-- Grain: one distinct event (event_id), as first seen.
with source as (

    select * from {{ source('bronze', 'events') }}

),

renamed as (

    select
        -- what happened
        event_id,
        event_type,
        channel,

        -- who, with what
        visitor_id,
        customer_id,
        stock_code,
        invoice,

        -- when
        event_ts,
        date as landing_date,
        hour as landing_hour,

        -- how much
        quantity,

        -- where the row came from
        _batch_id,
        _partition_key,
        _file,
        _line,
        _ingested_at
    from source

),

-- Trackers retry: an event may arrive several times, in several files.
deduplicated as (

    select *
    from renamed
    qualify
        row_number() over (
            partition by event_id
            order by event_ts, _partition_key, _file, _line
        ) = 1

)

select * from deduplicated
