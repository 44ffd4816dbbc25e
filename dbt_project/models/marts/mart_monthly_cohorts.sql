{{ config(
    materialized='healed',
    unique_key=['cohort_month', 'months_since'],
    changes_in=[{'table': 'gold.fct_order_lines'}]
) }}
-- Grain: one cohort (month of the first purchase) x months since, up to the last month in the data.
with purchases as (

    select
        customer_id,
        cast(date_trunc('month', invoiced_at) as date) as purchase_month,
        sum(line_amount) as revenue
    from {{ ref('fct_order_lines') }}
    where
        line_type = 'sale'
        and customer_id is not null
    group by customer_id, purchase_month

),

placed as (

    select
        *,
        min(purchase_month) over (partition by customer_id) as cohort_month
    from purchases

),

active as (

    select
        cohort_month,
        date_diff('month', cohort_month, purchase_month) as months_since,
        count(*) as customers,
        sum(revenue) as revenue
    from placed
    group by cohort_month, months_since

),

cohorts as (

    select
        cohort_month,
        customers as cohort_customers
    from active
    where months_since = 0

),

-- Months in which nobody of a cohort bought are rows too: retention is zero there, not missing.
cells as (

    select
        cohort_month,
        cohort_customers,
        unnest(generate_series(
            0, date_diff('month', cohort_month, (select max(placed.purchase_month) from placed))
        )) as months_since
    from cohorts

)

select
    cells.cohort_month,
    cast(cells.months_since as integer) as months_since,
    cells.cohort_customers,
    coalesce(active.customers, 0) as customers,
    cast(coalesce(active.revenue, 0) as decimal(18, 4)) as revenue,
    cast(coalesce(active.customers, 0) / cells.cohort_customers as decimal(9, 6)) as retention
from cells
left join active
    on
        cells.cohort_month = active.cohort_month
        and cells.months_since = active.months_since
