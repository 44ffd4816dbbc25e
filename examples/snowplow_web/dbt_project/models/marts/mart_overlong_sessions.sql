{{ config(
    materialized='healed',
    unique_key='session_id',
    slice_by='session_id',
    changes_in=[{'table': 'gold.fct_web_events', 'slices': 'domain_sessionid'}]
) }}
-- Grain: one session with events more than three days after its first; elsewhere those events are left out.
select
    domain_sessionid as session_id,
    min(collector_tstamp) as received_at
from {{ ref('fct_web_events') }}
where {{ touched_rows() }} and is_of_overlong_session
group by domain_sessionid
