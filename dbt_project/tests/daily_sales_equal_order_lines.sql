-- The aggregates hold what the order lines hold, day by day and region by region.
with lines as (

    select
        date_key,
        region_key,
        count(*) as order_lines,
        sum(line_amount) as net_amount
    from {{ ref('fct_order_lines') }}
    group by date_key, region_key

),

daily as (

    select
        date_key,
        region_key,
        sum(order_lines) as order_lines,
        sum(net_amount) as net_amount,
        sum(sales_amount + returns_amount + other_amount) as net_amount_of_parts
    from {{ ref('fct_daily_sales') }}
    group by date_key, region_key

),

mart as (

    select
        date_key,
        region_key,
        order_lines,
        net_amount
    from {{ ref('mart_daily_sales') }}
    where order_lines > 0 or net_amount != 0

)

select
    coalesce(lines.date_key, daily.date_key, mart.date_key) as date_key,
    coalesce(lines.region_key, daily.region_key, mart.region_key) as region_key,
    lines.net_amount as of_order_lines,
    daily.net_amount as of_daily_sales,
    mart.net_amount as of_mart
from lines
full outer join daily
    on
        lines.date_key = daily.date_key
        and lines.region_key = daily.region_key
full outer join mart
    on
        lines.date_key = mart.date_key
        and lines.region_key = mart.region_key
where
    lines.order_lines is distinct from daily.order_lines
    or lines.order_lines is distinct from mart.order_lines
    or lines.net_amount is distinct from daily.net_amount
    or lines.net_amount is distinct from daily.net_amount_of_parts
    or lines.net_amount is distinct from mart.net_amount
