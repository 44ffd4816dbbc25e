-- The fact holds every accepted order line once: rows, units and amount as in bronze, to the last digit.
with gold as (

    select
        count(*) as row_count,
        count(distinct order_line_key) as distinct_rows,
        coalesce(sum(quantity), 0) as quantity,
        coalesce(sum(line_amount), 0) as amount
    from {{ ref('fct_order_lines') }}

),

bronze as (

    select
        count(*) as row_count,
        coalesce(sum(quantity), 0) as quantity,
        coalesce(sum(quantity * unit_price), 0) as amount
    from {{ source('bronze', 'orders') }}

)

select
    gold.*,
    bronze.*
from gold
cross join bronze
where
    gold.row_count != bronze.row_count
    or gold.distinct_rows != bronze.row_count
    or gold.quantity != bronze.quantity
    or gold.amount != bronze.amount
