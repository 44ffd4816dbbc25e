-- Grain: one event.
with source as (

    select * from {{ source('bronze', 'ecommerce_events') }}

)

select
    -- who, where
    event_id,
    app_id,
    platform,
    user_id,
    network_userid,
    client_session,
    {{ session_of_event() }} as domain_sessionid,
    coalesce(domain_userid, {{ of_context('client_session', 'userId') }}) as domain_userid,
    coalesce({{ of_context('web_page', 'id') }}, {{ of_context('mobile_screen', 'id') }}) as page_view_id,

    -- of the user only what names nobody
    {{ of_context('shop_user', 'id') }} as ecommerce_user_id,
    cast({{ of_context('shop_user', 'is_guest') }} as boolean) as ecommerce_user_is_guest,

    -- when
    collector_tstamp,
    derived_tstamp,
    cast(derived_tstamp as date) as derived_tstamp_date,

    -- what
    json_extract_string(shop_action, '$.type') as ecommerce_action_type,
    json_extract_string(shop_action, '$.name') as ecommerce_action_name,
    {{ of_context('shop_page', 'type') }} as ecommerce_page_type,
    cast(json_extract(products, '$[*]') as json[]) as products,

    -- cart after it
    {{ of_context('cart', 'cart_id') }} as cart_id,
    {{ of_context('cart', 'currency') }} as cart_currency,
    cast({{ of_context('cart', 'total_value') }} as decimal(18, 4)) as cart_total_value,

    -- step of the checkout, without addresses
    cast({{ of_context('checkout_step', 'step') }} as integer) as checkout_step_number,
    {{ of_context('checkout_step', 'account_type') }} as checkout_account_type,
    {{ of_context('checkout_step', 'coupon_code') }} as checkout_coupon_code,
    {{ of_context('checkout_step', 'delivery_method') }} as checkout_delivery_method,
    {{ of_context('checkout_step', 'delivery_provider') }} as checkout_delivery_provider,
    cast({{ of_context('checkout_step', 'marketing_opt_in') }} as boolean) as checkout_marketing_opt_in,
    {{ of_context('checkout_step', 'payment_method') }} as checkout_payment_method,

    -- transaction
    {{ of_context('shop_transaction', 'transaction_id') }} as transaction_id,
    {{ of_context('shop_transaction', 'currency') }} as transaction_currency,
    {{ of_context('shop_transaction', 'payment_method') }} as transaction_payment_method,
    cast({{ of_context('shop_transaction', 'revenue') }} as decimal(18, 4)) as transaction_revenue,
    cast({{ of_context('shop_transaction', 'total_quantity') }} as integer) as transaction_total_quantity,
    cast({{ of_context('shop_transaction', 'credit_order') }} as boolean) as transaction_credit_order,
    cast({{ of_context('shop_transaction', 'discount_amount') }} as decimal(18, 4))
        as transaction_discount_amount,
    {{ of_context('shop_transaction', 'discount_code') }} as transaction_discount_code,
    cast({{ of_context('shop_transaction', 'shipping') }} as decimal(18, 4)) as transaction_shipping,
    cast({{ of_context('shop_transaction', 'tax') }} as decimal(18, 4)) as transaction_tax
from source
