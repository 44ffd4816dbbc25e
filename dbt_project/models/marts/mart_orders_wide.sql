{{ config(
    materialized='healed',
    unique_key='order_line_key',
    slice_by='date_key',
    changes_in=[
        {'table': 'gold.fct_order_lines', 'rows': 'order_line_key'},
        {'table': 'gold.dim_product', 'rows': 'product_key'},
        {'table': 'gold.dim_customer', 'rows': 'customer_key'},
        {'table': 'gold.dim_date', 'rows': 'date_key'},
        {'table': 'gold.dim_region', 'rows': 'region_key'},
    ]
) }}
-- Grain: one accepted order line, with the attributes of its dimensions as of the sale. No personal data.
with lines as (

    select * from {{ ref('fct_order_lines') }}
    where {{ touched_rows() }}

)

select
    -- keys
    lines.order_line_key,
    lines.invoice,
    lines.stock_code,
    lines.customer_id,
    lines.product_key,
    lines.customer_key,
    lines.region_key,
    lines.date_key,

    -- when
    lines.invoiced_at,
    dates.calendar_date,
    dates.calendar_year,
    dates.year_month,
    dates.day_name,
    dates.is_weekend,

    -- where
    regions.region_name,

    -- product as of the sale
    products.description as product_description,
    products.list_price as product_list_price,
    products.version as product_version,
    products.is_inferred as product_is_inferred,

    -- customer as of the sale
    customers.country as customer_country,
    customers.segment as customer_segment,
    customers.version as customer_version,
    customers.is_inferred as customer_is_inferred,
    customers.is_unknown as customer_is_unknown,

    -- kind and measures
    lines.line_type,
    lines.is_return,
    lines.is_adjustment,
    lines.quantity,
    lines.unit_price,
    lines.line_amount,
    lines.list_amount
from lines
inner join {{ ref('dim_product') }} as products on lines.product_key = products.product_key
inner join {{ ref('dim_customer') }} as customers on lines.customer_key = customers.customer_key
inner join {{ ref('dim_region') }} as regions on lines.region_key = regions.region_key
inner join {{ ref('dim_date') }} as dates on lines.date_key = dates.date_key
