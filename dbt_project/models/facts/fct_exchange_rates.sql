{{ config(
    materialized='healed',
    unique_key=['date_key', 'currency'],
    changes_in=[{'table': 'bronze.exchange_rates'}, {'table': 'gold.fct_order_lines'}, {'table': 'gold.dim_date'}]
) }}
-- Grain: one calendar day x currency, from its first rate to the last day with a rate or an order line.
with rates as (

    select * from {{ ref('stg_exchange_rates') }}

),

first_rates as (

    select
        currency,
        min(rate_date) as first_rate_date
    from rates
    group by currency

),

-- While the API is down orders go on, and are to find the last rate.
bounds as (

    select
        greatest(
            (select {{ date_key('max(rates.rate_date)') }} from rates),
            (select max(order_lines.date_key) from {{ ref('fct_order_lines') }} as order_lines)
        ) as last_date_key

),

days as (

    select
        dates.date_key,
        dates.calendar_date,
        first_rates.currency
    from {{ ref('dim_date') }} as dates
    inner join first_rates on dates.calendar_date >= first_rates.first_rate_date
    where dates.date_key <= (select bounds.last_date_key from bounds)

),

carried as (

    select
        days.date_key,
        days.currency,
        days.calendar_date,
        rates.rate_date,
        rates.base_currency,
        rates.rate,
        rates._batch_id,
        rates._file,
        rates._line
    from days
    asof inner join rates
        on
            days.currency = rates.currency
            and days.calendar_date >= rates.rate_date

)

select
    -- keys
    date_key,
    currency,
    base_currency,
    calendar_date,

    -- the rate
    rate,
    rate_date,

    -- how old it is
    rate_date < calendar_date as is_carried_over,
    cast(calendar_date - rate_date as integer) as days_since_rate,

    -- lineage
    _batch_id,
    _file,
    _line
from carried
