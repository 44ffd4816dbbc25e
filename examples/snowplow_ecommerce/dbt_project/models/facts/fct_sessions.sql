{{ config(
    materialized='healed',
    unique_key='domain_sessionid',
    event_time='start_tstamp',
    changes_in=[
        {'table': 'gold.fct_ecommerce_events', 'rows': 'domain_sessionid'},
        {'table': 'gold.fct_cart_interactions', 'rows': 'domain_sessionid'},
        {'table': 'gold.fct_checkout_interactions', 'rows': 'domain_sessionid'},
        {'table': 'gold.fct_product_interactions', 'rows': 'domain_sessionid'},
        {'table': 'gold.fct_transactions', 'rows': 'domain_sessionid'},
    ]
) }}
-- Grain: one session, as the tracker counts them. What it has not touched, a cart say, is null, not zero.
with sessions as (

    select
        domain_sessionid,
        min(domain_userid) as domain_userid,
        min(app_id) as app_id,
        min(collector_tstamp) as start_tstamp,
        max(collector_tstamp) as end_tstamp
    from {{ ref('fct_ecommerce_events') }}
    where {{ touched_rows() }}
    group by domain_sessionid

),

carts as (

    select
        domain_sessionid,
        count(distinct cart_id) as number_unique_cart_ids,
        count(*) filter (where cart_created) as number_carts_created,
        count(*) filter (where cart_emptied) as number_carts_emptied,
        count(*) filter (where cart_transacted) as number_carts_transacted,
        min(derived_tstamp) filter (where cart_created) as first_cart_created,
        max(derived_tstamp) filter (where cart_created) as last_cart_created,
        min(derived_tstamp) filter (where cart_transacted) as first_cart_transacted,
        max(derived_tstamp) filter (where cart_transacted) as last_cart_transacted
    from {{ ref('fct_cart_interactions') }}
    where {{ touched_rows() }}
    group by domain_sessionid

),

checkouts as (

    select
        domain_sessionid,
        bool_or(session_entered_at_step) as session_entered_at_checkout,
        count(distinct checkout_step_number) as number_unique_checkout_steps_attempted,
        count(*) as number_checkout_steps_visited,
        bool_or(checkout_succeeded) as checkout_succeeded,
        min(derived_tstamp) filter (where checkout_step_number = 1) as first_checkout_attempted,
        max(derived_tstamp) filter (where checkout_step_number = 1) as last_checkout_attempted,
        min(derived_tstamp) filter (where checkout_succeeded) as first_checkout_succeeded,
        max(derived_tstamp) filter (where checkout_succeeded) as last_checkout_succeeded
    from {{ ref('fct_checkout_interactions') }}
    where {{ touched_rows() }}
    group by domain_sessionid

),

products as (

    select
        domain_sessionid,
        min(derived_tstamp) filter (where is_product_view) as first_product_view,
        max(derived_tstamp) filter (where is_product_view) as last_product_view,
        min(derived_tstamp) filter (where is_add_to_cart) as first_product_add_to_cart,
        max(derived_tstamp) filter (where is_add_to_cart) as last_product_add_to_cart,
        min(derived_tstamp) filter (where is_remove_from_cart) as first_product_remove_from_cart,
        max(derived_tstamp) filter (where is_remove_from_cart) as last_product_remove_from_cart,
        min(derived_tstamp) filter (where is_product_transaction) as first_product_transaction,
        max(derived_tstamp) filter (where is_product_transaction) as last_product_transaction,
        count(distinct event_id) filter (where is_product_view) as number_product_views,
        count(distinct event_id) filter (where is_add_to_cart) as number_add_to_carts,
        count(distinct event_id) filter (where is_remove_from_cart) as number_remove_from_carts,
        count(distinct event_id) filter (where is_product_transaction) as number_product_transactions
    from {{ ref('fct_product_interactions') }}
    where {{ touched_rows() }}
    group by domain_sessionid

),

transactions as (

    select
        domain_sessionid,
        min(derived_tstamp) as first_transaction_completed,
        max(derived_tstamp) as last_transaction_completed,
        cast(sum(transaction_revenue) as decimal(18, 4)) as total_transaction_revenue,
        cast(sum(transaction_total_quantity) as bigint) as total_transaction_quantity,
        count(distinct transaction_id) as total_number_transactions,
        cast(sum(number_products) as bigint) as total_transacted_products
    from {{ ref('fct_transactions') }}
    where {{ touched_rows() }}
    group by domain_sessionid

)

select
    -- who, when
    sessions.domain_sessionid,
    sessions.domain_userid,
    sessions.app_id,
    sessions.start_tstamp,
    sessions.end_tstamp,

    -- carts
    carts.number_unique_cart_ids,
    carts.number_carts_created,
    carts.number_carts_emptied,
    carts.number_carts_transacted,
    carts.first_cart_created,
    carts.last_cart_created,
    carts.first_cart_transacted,
    carts.last_cart_transacted,
    carts.number_carts_created > carts.number_carts_transacted as session_cart_abandoned,

    -- checkout
    checkouts.session_entered_at_checkout,
    checkouts.number_unique_checkout_steps_attempted,
    checkouts.number_checkout_steps_visited,
    checkouts.checkout_succeeded,
    checkouts.first_checkout_attempted,
    checkouts.last_checkout_attempted,
    checkouts.first_checkout_succeeded,
    checkouts.last_checkout_succeeded,

    -- products
    products.first_product_view,
    products.last_product_view,
    products.first_product_add_to_cart,
    products.last_product_add_to_cart,
    products.first_product_remove_from_cart,
    products.last_product_remove_from_cart,
    products.first_product_transaction,
    products.last_product_transaction,
    products.number_product_views,
    products.number_add_to_carts,
    products.number_remove_from_carts,
    products.number_product_transactions,

    -- transactions
    transactions.first_transaction_completed,
    transactions.last_transaction_completed,
    transactions.total_transaction_revenue,
    transactions.total_transaction_quantity,
    transactions.total_number_transactions,
    transactions.total_transacted_products
from sessions
left join carts on sessions.domain_sessionid = carts.domain_sessionid
left join checkouts on sessions.domain_sessionid = checkouts.domain_sessionid
left join products on sessions.domain_sessionid = products.domain_sessionid
left join transactions on sessions.domain_sessionid = transactions.domain_sessionid
