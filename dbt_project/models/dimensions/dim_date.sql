{{ config(
    materialized='healed',
    unique_key='date_key',
    changes_in=[{'table': 'bronze.orders'}, {'table': 'bronze.events'}]
) }}
-- Grain: one calendar day; whole years from the first to the last day that has an order line or an event.
with instants as (

    select invoiced_at as instant from {{ ref('stg_orders') }}

    union all

    select event_ts as instant from {{ ref('stg_events') }}

),

bounds as (

    select
        date_trunc('year', min(instant)) as first_day,
        date_trunc('year', max(instant)) + interval 1 year - interval 1 day as last_day
    from instants

),

days as (

    select cast(unnest(generate_series(first_day, last_day, interval 1 day)) as date) as calendar_date
    from bounds

)

select
    {{ date_key('calendar_date') }} as date_key,
    calendar_date,

    -- calendar
    cast(year(calendar_date) as integer) as calendar_year,
    cast(quarter(calendar_date) as integer) as quarter_of_year,
    cast(month(calendar_date) as integer) as month_of_year,
    cast(day(calendar_date) as integer) as day_of_month,
    monthname(calendar_date) as month_name,
    cast(date_trunc('month', calendar_date) as date) as first_day_of_month,
    strftime(calendar_date, '%Y-%m') as year_month,

    -- ISO week
    cast(isoyear(calendar_date) as integer) as iso_year,
    cast(week(calendar_date) as integer) as iso_week,
    cast(isodow(calendar_date) as integer) as iso_day_of_week,
    dayname(calendar_date) as day_name,
    isodow(calendar_date) >= 6 as is_weekend
from days
