-- Over the whole lake: the sums of the current batches balance, and equal the rows in bronze and the dead
-- letters of those batches. Counted without grouping by batch: no logic shared with the per-batch test.
{%- set bronze = bronze_tables() if execute else [] %}
with booked as (

    select
        coalesce(sum(rows_read), 0) as rows_read,
        coalesce(sum(rows_accepted), 0) as rows_accepted,
        coalesce(sum(rows_dead_lettered), 0) as rows_dead_lettered,
        coalesce(sum(rows_duplicate), 0) as rows_duplicate,
        -- Accepted, and gone with the people they were about.
        coalesce(sum(rows_erased), 0) as rows_erased
    from {{ source('ops', 'ledger') }}
    where
        status = 'accepted'
        and superseded_by is null

),

counted as (

    select
        0
        {%- for relation in bronze %}
        + (select count(*) from {{ relation }})
        {%- endfor %} as rows_in_bronze,
        (
            select coalesce(sum(letters.rows), 0)
            from {{ source('ops', 'dead_letters') }} as letters
            semi join (
                select batch_id
                from {{ source('ops', 'ledger') }}
                where
                    status = 'accepted'
                    and superseded_by is null
            ) as current_batches on letters.batch_id = current_batches.batch_id
            -- What was replayed is in bronze, or a duplicate of what is.
            where letters.status != 'replayed'
        ) as rows_in_dead_letters

)

select
    booked.*,
    counted.*
from booked
cross join counted
where
    booked.rows_read != booked.rows_accepted + booked.rows_dead_lettered + booked.rows_duplicate
    or booked.rows_accepted != counted.rows_in_bronze + booked.rows_erased
    or booked.rows_dead_lettered != counted.rows_in_dead_letters
