-- Grain: one currency on one day it has a rate, as last fetched.
with source as (

    select * from {{ source('bronze', 'exchange_rates') }}

),

renamed as (

    select
        -- what is priced in what
        rate_date,
        base_currency,
        currency,

        -- how much
        rate,

        -- where the row came from
        date as landing_date,
        _batch_id,
        _partition_key,
        _file,
        _line,
        _ingested_at
    from source

),

-- A day's answer may tell of the days before; the later answer knows better.
deduplicated as (

    select *
    from renamed
    qualify
        row_number() over (
            partition by rate_date, currency
            order by _partition_key desc, _file desc, _line desc
        ) = 1

)

select * from deduplicated
