{{ config(
    materialized='healed',
    unique_key=['date_key', 'region_key', 'stock_code'],
    slice_by='date_key',
    changes_in=[{'table': 'gold.fct_order_lines'}]
) }}
-- Grain: one day x region x product (durable key stock_code) with at least one order line.
select
    -- keys
    date_key,
    region_key,
    stock_code,

    -- counts
    count(*) as order_lines,
    count(distinct invoice) as invoices,

    -- quantities
    cast(coalesce(sum(quantity) filter (where line_type = 'sale'), 0) as bigint) as quantity_sold,
    cast(coalesce(-sum(quantity) filter (where line_type = 'return'), 0) as bigint) as quantity_returned,
    cast(sum(quantity) as bigint) as net_quantity,

    -- amounts; sales + returns + other = net
    cast(
        coalesce(sum(line_amount) filter (where line_type = 'sale'), 0) as decimal(18, 4)
    ) as sales_amount,
    cast(
        coalesce(sum(line_amount) filter (where line_type = 'return'), 0) as decimal(18, 4)
    ) as returns_amount,
    cast(
        coalesce(sum(line_amount) filter (where line_type not in ('sale', 'return')), 0) as decimal(18, 4)
    ) as other_amount,
    cast(sum(line_amount) as decimal(18, 4)) as net_amount,
    cast(sum(list_amount) as decimal(18, 4)) as list_amount
from {{ ref('fct_order_lines') }}
where {{ touched_rows() }}
group by date_key, region_key, stock_code
