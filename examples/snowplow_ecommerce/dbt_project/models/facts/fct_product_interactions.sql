{{ config(
    materialized='healed',
    unique_key=['event_id', 'product_place'],
    event_time='derived_tstamp',
    changes_in=[{'table': 'gold.fct_ecommerce_events', 'rows': 'event_id'}]
) }}
-- Grain: one product of one event.
with events as (

    select
        *,
        unnest(range(1, len(products) + 1)) as product_place
    from {{ ref('fct_ecommerce_events') }}
    where {{ touched_rows() }}

),

named as (

    select
        *,
        products[product_place] as product,
        string_split(json_extract_string(products[product_place], '$.category'), '/') as categories,
        ecommerce_action_type in ('product_view', 'list_view') as is_product_view
    from events

)

select
    -- keys
    event_id,
    page_view_id,
    domain_sessionid,
    app_id,
    event_in_session_index,

    -- who
    domain_userid,
    network_userid,
    user_id,
    ecommerce_user_id,
    ecommerce_user_is_guest,

    -- when and what
    derived_tstamp,
    derived_tstamp_date,
    ecommerce_action_type,
    ecommerce_action_name,

    -- the product
    product_place,
    json_extract_string(product, '$.id') as product_id,
    json_extract_string(product, '$.name') as product_name,
    json_extract_string(product, '$.category') as product_category,
    categories[1] as product_subcategory_1,
    categories[2] as product_subcategory_2,
    categories[3] as product_subcategory_3,
    categories[4] as product_subcategory_4,
    json_extract_string(product, '$.brand') as product_brand,
    json_extract_string(product, '$.variant') as product_variant,
    json_extract_string(product, '$.size') as product_size,
    json_extract_string(product, '$.creative_id') as product_creative_id,
    json_extract_string(product, '$.inventory_status') as product_inventory_status,
    json_extract_string(product, '$.currency') as product_currency,
    cast(json_extract_string(product, '$.price') as decimal(18, 4)) as product_price,
    cast(json_extract_string(product, '$.list_price') as decimal(18, 4)) as product_list_price,
    cast(json_extract_string(product, '$.position') as integer) as product_list_position,
    cast(json_extract_string(product, '$.quantity') as integer) as product_quantity,

    -- what happened to it; null where the event does not say
    is_product_view,
    case when is_product_view then ecommerce_action_type end as product_view_type,
    case when is_product_view then ecommerce_action_name end as product_list_name,
    ecommerce_action_type = 'add_to_cart' as is_add_to_cart,
    ecommerce_action_type = 'remove_from_cart' as is_remove_from_cart,
    ecommerce_action_type = 'transaction' as is_product_transaction,
    transaction_id
from named
