{{ config(
    materialized='healed',
    unique_key='session_key',
    event_time='started_at',
    changes_in=[{'table': 'gold.fct_events', 'rows': 'visitor_id'}]
) }}
-- Grain: one session of one visitor, [started_at, expires_at): each event keeps it open for 30 minutes more.
with events as (

    select * from {{ ref('fct_events') }}
    where {{ touched_rows() }}

),

-- Half-open: what comes exactly 30 minutes after the event before begins a new session.
placed as (

    select
        *,
        row_number() over visitor as place,
        coalesce(event_ts >= lag(event_ts) over visitor + {{ session_gap() }}, true) as is_first
    from events
    window visitor as (partition by visitor_id order by event_ts, event_id)

),

numbered as (

    select
        *,
        count(*) filter (where is_first) over (
            partition by visitor_id
            order by place
            rows between unbounded preceding and current row
        ) as session_number
    from placed

),

-- The funnel, in order: a step counts at or after the first time of the step before.
viewed as (

    select
        *,
        min(event_ts) filter (where event_type = 'view')
            over (partition by visitor_id, session_number) as viewed_at
    from numbered

),

carted as (

    select
        *,
        min(event_ts) filter (where event_type = 'add_to_cart' and event_ts >= viewed_at)
            over (partition by visitor_id, session_number) as carted_at
    from viewed

),

sessions as (

    select
        visitor_id,
        session_number,

        -- when
        min(event_ts) as started_at,
        max(event_ts) as last_event_at,

        -- who was signed in last
        arg_max(customer_id, place) as customer_id,
        arg_max(customer_key, place) filter (where customer_id is not null) as customer_key,

        -- how it began
        min(channel) filter (where is_first) as channel,
        min(event_type) filter (where is_first) as landing_event_type,
        min(stock_code) filter (where is_first) as landing_stock_code,

        -- events
        count(*) as events,
        count(*) filter (where event_type = 'page_view') as page_views,
        count(*) filter (where event_type = 'view') as product_views,
        count(*) filter (where event_type = 'add_to_cart') as cart_additions,
        count(*) filter (where event_type = 'remove_from_cart') as cart_removals,
        count(*) filter (where event_type = 'checkout') as checkouts,
        count(*) filter (where event_type = 'purchase') as purchases,

        -- what was bought
        count(distinct invoice) filter (where event_type = 'purchase') as invoices,
        arg_min(invoice, place) filter (where event_type = 'purchase') as invoice,

        -- the funnel
        min(viewed_at) as viewed_at,
        min(carted_at) as carted_at,
        min(event_ts) filter (where event_type = 'purchase' and event_ts >= carted_at) as purchased_at
    from carted
    group by visitor_id, session_number

)

select
    -- keys
    {{ hash_key(['visitor_id', "strftime(started_at, '%Y-%m-%dT%H:%M:%S.%f')"]) }} as session_key,
    coalesce(customer_key, {{ unknown_key() }}) as customer_key,
    {{ date_key('started_at') }} as date_key,

    -- durable natural keys
    visitor_id,
    customer_id,

    -- when
    started_at,
    last_event_at,
    last_event_at + {{ session_gap() }} as expires_at,
    date_sub('second', started_at, last_event_at) as duration_seconds,

    -- how it began
    channel,
    landing_event_type,
    landing_stock_code,

    -- events
    events,
    page_views,
    product_views,
    cart_additions,
    cart_removals,
    checkouts,
    purchases,

    -- what was bought
    purchases > 0 as has_purchase,
    invoices,
    invoice,

    -- the funnel, in order
    viewed_at,
    carted_at,
    purchased_at
from sessions
