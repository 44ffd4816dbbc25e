{{ config(
    materialized='healed',
    unique_key='event_id',
    slice_by='domain_sessionid',
    changes_in=[{'table': 'bronze.ecommerce_events', 'slices': session_of_event()}]
) }}
-- Grain: one event, with its place in its session.
with events as (

    select * from {{ ref('stg_ecommerce_events') }}
    where {{ touched_rows() }}

)

select
    * exclude (client_session),
    -- What happened at one instant has one place.
    dense_rank() over (partition by domain_sessionid order by derived_tstamp) as event_in_session_index
from events
