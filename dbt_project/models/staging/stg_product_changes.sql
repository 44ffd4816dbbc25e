-- Grain: one change of one product, as first delivered.
with source as (

    select * from {{ source('bronze', 'products') }}

),

renamed as (

    select
        -- what changed
        stock_code,

        -- the row image: after the change; of a delete, what was sent of the row before it
        description,
        list_price,

        -- how and when
        _op as operation,
        _op = 'd' as is_delete,
        _op = 't' as is_truncate,
        _source_ts as changed_at,

        -- order of the changes of one key: log position, place in the transaction, place in the stream
        _lsn as change_seq_lsn,
        {{ change_order('products', 2) }} as change_seq_order,
        _partition_key as change_seq_partition,
        _file as change_seq_file,
        _line as change_seq_line,

        -- where the row came from
        _batch_id,
        _partition_key,
        _file,
        _line,
        _ingested_at
    from source

),

-- Streams deliver at least once. The same change sent again keeps its first place.
deduplicated as (

    select *
    from renamed
    qualify
        row_number() over (
            partition by
                stock_code, change_seq_lsn, change_seq_order,
                operation, changed_at, description, list_price
            order by change_seq_partition, change_seq_file, change_seq_line
        ) = 1

)

select * from deduplicated
