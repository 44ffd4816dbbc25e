-- The keys of the order lines are those an ASOF join finds (another algorithm than the range join):
-- the version that started last, at or before the sale.
with lines as (

    select
        order_line_key,
        product_key,
        customer_key,
        stock_code,
        customer_id,
        invoiced_at
    from {{ ref('fct_order_lines') }}

),

by_product as (

    select
        lines.order_line_key,
        lines.product_key as found,
        versions.product_key as expected
    from lines
    asof left join {{ ref('dim_product') }} as versions
        on
            lines.stock_code = versions.stock_code
            and lines.invoiced_at >= versions.valid_from

),

by_customer as (

    select
        lines.order_line_key,
        lines.customer_key as found,
        coalesce(versions.customer_key, {{ unknown_key() }}) as expected
    from lines
    asof left join {{ ref('dim_customer') }} as versions
        on
            lines.customer_id = versions.customer_id
            and lines.invoiced_at >= versions.valid_from

)

select *
from by_product
where found is distinct from expected

union all

select *
from by_customer
where found is distinct from expected
