-- Grain: one accepted order line (file, line).
with source as (

    select * from {{ source('bronze', 'orders') }}

),

renamed as (

    select
        -- what was sold, to whom, where
        invoice,
        stock_code,
        customer_id,
        region as region_code,
        country,
        description,

        -- when
        invoiced_at,
        date as landing_date,

        -- how much
        quantity,
        unit_price,

        -- where the row came from
        _batch_id,
        _partition_key,
        _file,
        _line,
        _ingested_at
    from source

)

select * from renamed
