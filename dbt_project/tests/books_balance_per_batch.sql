-- Every current batch: rows read = accepted + dead-lettered + duplicates, and both ledger counts are what the
-- tables hold. A row in bronze or in the dead letters without a batch in the ledger fails too, as do rows in
-- bronze of a batch that was refused or superseded.
{%- set bronze = bronze_tables() if execute else [] %}
with bronze_rows as (

    {% for relation in bronze -%}
        select _batch_id as batch_id
        from {{ relation }}
        union all by name
    {% endfor -%}
    select cast(null as varchar) as batch_id
    where false

),

bronze_batches as (

    select
        batch_id,
        count(*) as rows_found
    from bronze_rows
    group by batch_id

),

dead_batches as (

    select
        batch_id,
        sum(rows) as rows_found
    from {{ source('ops', 'dead_letters') }}
    -- What was replayed is in bronze, or a duplicate of what is.
    where status != 'replayed'
    group by batch_id

),

booked as (

    select
        *,
        status = 'accepted' and superseded_by is null as is_current
    from {{ source('ops', 'ledger') }}

),

compared as (

    select
        coalesce(booked.batch_id, bronze_batches.batch_id, dead_batches.batch_id) as batch_id,
        booked.status,
        booked.rows_read,
        booked.rows_accepted,
        booked.rows_dead_lettered,
        booked.rows_duplicate,
        -- Accepted, and gone with the people they were about.
        coalesce(booked.rows_erased, 0) as rows_erased,
        coalesce(bronze_batches.rows_found, 0) as rows_in_bronze,
        coalesce(dead_batches.rows_found, 0) as rows_in_dead_letters,
        booked.is_current
    from booked
    full outer join bronze_batches on booked.batch_id = bronze_batches.batch_id
    full outer join dead_batches on coalesce(booked.batch_id, bronze_batches.batch_id) = dead_batches.batch_id

)

select *
from compared
where
    is_current is null
    or (not is_current and rows_in_bronze > 0)
    or (
        is_current
        and (
            rows_read is distinct from rows_accepted + rows_dead_lettered + rows_duplicate
            or rows_accepted is distinct from rows_in_bronze + rows_erased
            or rows_dead_lettered is distinct from rows_in_dead_letters
        )
    )
