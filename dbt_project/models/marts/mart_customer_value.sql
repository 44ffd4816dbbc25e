{{ config(
    materialized='healed',
    unique_key='customer_id',
    changes_in=[{'table': 'gold.fct_order_lines'}, {'table': 'gold.dim_customer'}]
) }}
-- Grain: one known customer (durable key customer_id) with at least one sale.
with lines as (

    select
        customer_id,
        invoice,
        line_type,
        line_amount,
        cast(invoiced_at as date) as invoice_date
    from {{ ref('fct_order_lines') }}

),

-- Today is the last day in the data: the same data give the same scores whenever they are computed.
today as (

    select max(invoice_date) as as_of_date from lines

),

per_customer as (

    select
        customer_id,
        min(invoice_date) filter (where line_type = 'sale') as first_purchase_date,
        max(invoice_date) filter (where line_type = 'sale') as last_purchase_date,
        count(distinct invoice) filter (where line_type = 'sale') as frequency,
        cast(sum(line_amount) filter (where line_type in ('sale', 'return')) as decimal(18, 4)) as monetary,
        cast(sum(line_amount) filter (where line_type = 'sale') as decimal(18, 4)) as sales_amount
    from lines
    where customer_id is not null
    group by customer_id
    having bool_or(line_type = 'sale')

),

measured as (

    select
        per_customer.*,
        today.as_of_date,
        cast(today.as_of_date - per_customer.last_purchase_date as integer) as recency_days
    from per_customer
    cross join today

),

-- Quintile by rank: equal customers get equal scores, whatever the order of rows. 5 is best.
ranked as (

    select
        *,
        count(*) over () as customers,
        rank() over (order by recency_days desc) as recency_rank,
        rank() over (order by frequency) as frequency_rank,
        rank() over (order by monetary) as monetary_rank
    from measured

),

scored as (

    select
        *,
        cast(1 + 5 * (recency_rank - 1) // customers as integer) as recency_score,
        cast(1 + 5 * (frequency_rank - 1) // customers as integer) as frequency_score,
        cast(1 + 5 * (monetary_rank - 1) // customers as integer) as monetary_score
    from ranked

)

select
    -- key and latest attributes
    scored.customer_id,
    customers.country,
    customers.segment,

    -- behaviour
    scored.as_of_date,
    scored.first_purchase_date,
    scored.last_purchase_date,
    scored.recency_days,
    scored.frequency,
    scored.monetary,
    cast(scored.sales_amount / scored.frequency as decimal(18, 4)) as average_sale_amount,

    -- scores
    scored.recency_score,
    scored.frequency_score,
    scored.monetary_score,
    scored.recency_score * 100 + scored.frequency_score * 10 + scored.monetary_score as rfm_score
from scored
left join {{ ref('dim_customer') }} as customers
    on
        scored.customer_id = customers.customer_id
        and customers.valid_to is null
