{{ config(
    materialized='healed',
    unique_key='event_id',
    event_time='derived_tstamp',
    changes_in=[{'table': 'gold.fct_ecommerce_events', 'rows': 'event_id'}]
) }}
-- Grain: one transaction.
with events as (

    select * from {{ ref('fct_ecommerce_events') }}
    where {{ touched_rows() }} and ecommerce_action_type = 'transaction'

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

    -- the transaction
    transaction_id,
    transaction_currency,
    transaction_payment_method,
    transaction_revenue,
    transaction_total_quantity,
    transaction_credit_order,
    transaction_discount_amount,
    transaction_discount_code,
    transaction_shipping,
    transaction_tax,
    len(products) as number_products
from events
