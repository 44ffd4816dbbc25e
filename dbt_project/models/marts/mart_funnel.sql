{{ config(
    materialized='healed',
    unique_key=['date_key', 'channel'],
    slice_by='date_key',
    changes_in=[{'table': 'gold.fct_sessions'}]
) }}
-- Grain: one day x channel with a session; a session counts on the day it began, with all of it.
with sessions as (

    select
        date_key,
        cast(started_at as date) as calendar_date,
        coalesce(channel, 'unknown') as channel,
        viewed_at,
        carted_at,
        purchased_at
    from {{ ref('fct_sessions') }}
    where {{ touched_rows() }}

),

counted as (

    select
        date_key,
        calendar_date,
        channel,
        count(*) as sessions,
        count(viewed_at) as viewed_sessions,
        count(carted_at) as carted_sessions,
        count(purchased_at) as purchased_sessions
    from sessions
    group by date_key, calendar_date, channel

)

select
    -- keys
    date_key,
    calendar_date,
    channel,

    -- sessions that came so far; each step after the one before
    sessions,
    viewed_sessions,
    carted_sessions,
    purchased_sessions,

    -- of those that came to the step before
    cast(viewed_sessions / sessions as decimal(9, 6)) as view_rate,
    cast(carted_sessions / nullif(viewed_sessions, 0) as decimal(9, 6)) as cart_rate,
    cast(purchased_sessions / nullif(carted_sessions, 0) as decimal(9, 6)) as purchase_rate,

    -- of all
    cast(purchased_sessions / sessions as decimal(9, 6)) as conversion_rate
from counted
