-- Grain: one distinct event (event_id), as first received.
with source as (

    select * from {{ source('bronze', 'web_events') }}

),

-- A tracker sends again what it has no answer to. Equal times: the earlier event.
deduplicated as (

    select
        * exclude (page_context),
        json_extract_string(page_context, '$[0].id') as page_view_id,
        -- What says that somebody was on a page: a view, or a ping from one.
        event_name in ('page_view', 'page_ping') as is_presence
    from source
    qualify
        row_number() over (
            partition by event_id
            order by collector_tstamp, derived_tstamp, _partition_key, _file, _line
        ) = 1

)

select * from deduplicated
