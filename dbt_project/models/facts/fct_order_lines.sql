{{ config(
    materialized='healed',
    unique_key=['_file', '_line'],
    event_time='invoiced_at',
    changes_in=[
        {'table': 'bronze.orders'},
        {'table': 'gold.dim_product', 'lookup': 'stock_code'},
        {'table': 'gold.dim_customer', 'lookup': 'customer_id'},
    ]
) }}
-- Grain: one accepted order line; dimension keys are those valid at invoiced_at.
with lines as (

    select * from {{ ref('stg_orders') }}
    where {{ touched_rows() }}

),

products as (

    select * from {{ ref('dim_product') }}

),

customers as (

    select * from {{ ref('dim_customer') }}

),

looked_up as (

    select
        lines.*,
        products.list_price,
        case
            when lines.stock_code is null then {{ unknown_key() }}
            else products.product_key
        end as product_key,
        case
            when lines.customer_id is null then {{ unknown_key() }}
            else customers.customer_key
        end as customer_key,
        starts_with(lines.invoice, 'C') as is_return,
        starts_with(lines.invoice, 'A') as is_adjustment
    from lines
    left join products
        on
            lines.stock_code = products.stock_code
            and {{ valid_at('products', 'lines.invoiced_at') | indent(12) }}
    left join customers
        on
            lines.customer_id = customers.customer_id
            and {{ valid_at('customers', 'lines.invoiced_at') | indent(12) }}

)

select
    -- keys
    {{ hash_key(['_file', '_line']) }} as order_line_key,
    product_key,
    customer_key,
    region_code as region_key,
    {{ date_key('invoiced_at') }} as date_key,

    -- degenerate and durable natural keys
    invoice,
    stock_code,
    customer_id,

    -- when and what kind
    invoiced_at,
    case
        when is_return then 'return'
        when is_adjustment then 'adjustment'
        when quantity > 0 then 'sale'
        else 'other'
    end as line_type,
    is_return,
    is_adjustment,

    -- measures
    quantity,
    unit_price,
    cast(quantity * unit_price as decimal(18, 4)) as line_amount,
    list_price,
    cast(quantity * list_price as decimal(18, 4)) as list_amount,

    -- lineage
    _batch_id,
    _file,
    _line
from looked_up
