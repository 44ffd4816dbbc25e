{{ config(
    materialized='healed',
    unique_key='event_id',
    event_time='derived_tstamp',
    changes_in=[{'table': 'gold.fct_ecommerce_events', 'rows': 'event_id'}]
) }}
-- Grain: one event of a checkout: a step of it, or the transaction, which is the fourth and last.
with events as (

    select * from {{ ref('fct_ecommerce_events') }}
    where {{ touched_rows() }} and ecommerce_action_type in ('checkout_step', 'transaction')

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

    -- the step
    ecommerce_page_type,
    case
        when ecommerce_action_type = 'transaction' then 4
        else checkout_step_number
    end as checkout_step_number,
    checkout_account_type,
    checkout_coupon_code,
    checkout_delivery_method,
    checkout_delivery_provider,
    checkout_marketing_opt_in,
    checkout_payment_method,

    -- how it went
    event_in_session_index = 1 as session_entered_at_step,
    ecommerce_action_type = 'transaction' as checkout_succeeded
from events
