{{ config(
    materialized='healed',
    unique_key='event_id',
    event_time='derived_tstamp',
    changes_in=[{'table': 'gold.fct_ecommerce_events', 'rows': 'event_id'}]
) }}
-- Grain: one event that changed a cart: something came, something went, it was bought.
with events as (

    select
        *,
        list_sum(list_transform(
            products,
            lambda p:
            cast(json_extract_string(p, '$.price') as decimal(18, 4))
            * coalesce(cast(json_extract_string(p, '$.quantity') as integer), 1)
        )) as products_value
    from {{ ref('fct_ecommerce_events') }}
    where {{ touched_rows() }} and ecommerce_action_type in ('add_to_cart', 'remove_from_cart', 'transaction')

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

    -- the cart after it
    cart_id,
    cart_currency,
    cart_total_value,

    -- what became of it; a cart that is worth what was put in did not exist before
    case
        when ecommerce_action_type = 'add_to_cart' then cart_total_value = products_value
    end as cart_created,
    cart_total_value = 0 as cart_emptied,
    ecommerce_action_type = 'transaction' as cart_transacted
from events
