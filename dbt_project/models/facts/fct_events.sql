{{ config(
    materialized='healed',
    unique_key='event_id',
    event_time='event_ts',
    changes_in=[
        {'table': 'bronze.events', 'rows': 'event_id'},
        {'table': 'gold.dim_product', 'lookup': 'stock_code'},
        {'table': 'gold.dim_customer', 'lookup': 'customer_id'},
    ]
) }}
-- Grain: one distinct event; dimension keys are those valid at event_ts.
with events as (

    select * from {{ ref('stg_events') }}
    where {{ touched_rows() }}

),

products as (

    select * from {{ ref('dim_product') }}

),

customers as (

    select * from {{ ref('dim_customer') }}

)

select
    -- keys
    {{ hash_key(['events.event_id']) }} as event_key,
    case
        when events.stock_code is null then {{ unknown_key() }}
        else products.product_key
    end as product_key,
    case
        when events.customer_id is null then {{ unknown_key() }}
        else customers.customer_key
    end as customer_key,
    {{ date_key('events.event_ts') }} as date_key,

    -- degenerate and durable natural keys
    events.event_id,
    events.visitor_id,
    events.invoice,
    events.stock_code,
    events.customer_id,

    -- when and what kind
    events.event_ts,
    events.event_type,
    events.channel,

    -- measures
    events.quantity,

    -- lineage
    events._batch_id,
    events._file,
    events._line
from events
left join products
    on
        events.stock_code = products.stock_code
        and {{ valid_at('products', 'events.event_ts') | indent(8) }}
left join customers
    on
        events.customer_id = customers.customer_id
        and {{ valid_at('customers', 'events.event_ts') | indent(8) }}
