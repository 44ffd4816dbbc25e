{{ config(
    materialized='healed',
    unique_key=['date_key', 'region_key'],
    changes_in=[{'table': 'gold.fct_order_lines'}, {'table': 'gold.dim_date'}, {'table': 'gold.dim_region'}]
) }}
-- Grain: one calendar day x region, first to last day with an order line; zeros on days without sales.
with daily as (

    select
        date_key,
        region_key,
        count(*) as order_lines,
        count(distinct invoice) filter (where line_type = 'sale') as sales_invoices,
        count(distinct customer_id) as known_customers,
        sum(quantity) filter (where line_type = 'sale') as quantity_sold,
        sum(line_amount) filter (where line_type = 'sale') as sales_amount,
        sum(line_amount) filter (where line_type = 'return') as returns_amount,
        sum(line_amount) as net_amount
    from {{ ref('fct_order_lines') }}
    group by date_key, region_key

),

days as (

    select
        dates.date_key,
        dates.calendar_date,
        dates.first_day_of_month
    from {{ ref('dim_date') }} as dates
    where
        dates.date_key >= (select min(daily.date_key) from daily)
        and dates.date_key <= (select max(daily.date_key) from daily)

),

filled as (

    select
        days.date_key,
        days.calendar_date,
        days.first_day_of_month,
        regions.region_key,
        coalesce(daily.order_lines, 0) as order_lines,
        coalesce(daily.sales_invoices, 0) as sales_invoices,
        coalesce(daily.known_customers, 0) as known_customers,
        cast(coalesce(daily.quantity_sold, 0) as bigint) as quantity_sold,
        cast(coalesce(daily.sales_amount, 0) as decimal(18, 4)) as sales_amount,
        cast(coalesce(daily.returns_amount, 0) as decimal(18, 4)) as returns_amount,
        cast(coalesce(daily.net_amount, 0) as decimal(18, 4)) as net_amount
    from days
    cross join {{ ref('dim_region') }} as regions
    left join daily
        on
            days.date_key = daily.date_key
            and regions.region_key = daily.region_key

)

select
    -- keys
    date_key,
    region_key,
    calendar_date,

    -- the day
    order_lines,
    sales_invoices,
    known_customers,
    quantity_sold,
    sales_amount,
    returns_amount,
    net_amount,

    -- the day in its surroundings; the first six days average the days there are
    cast(avg(net_amount) over (
        partition by region_key
        order by calendar_date
        rows between 6 preceding and current row
    ) as decimal(18, 4)) as net_amount_7_day_average,
    lag(net_amount, 7) over (
        partition by region_key
        order by calendar_date
    ) as net_amount_week_before,
    cast(sum(net_amount) over (
        partition by region_key, first_day_of_month
        order by calendar_date
        rows between unbounded preceding and current row
    ) as decimal(18, 4)) as net_amount_month_to_date
from filled
