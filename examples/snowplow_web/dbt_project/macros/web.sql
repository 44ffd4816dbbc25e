{#- What the models of page views, sessions and users share. -#}

{#-
    Seconds somebody was engaged, of page pings: each span of ten seconds with a ping counts, but the first of a page counts
    five, for a page is left some time before its next ping. An aggregate of events.
-#}
{% macro engaged_seconds() -%}
    10 * count(distinct page_view_id || ' ' || epoch_ms(dvce_created_tstamp) // 10000)
        filter (where event_name = 'page_ping')
    - 5 * count(distinct page_view_id) filter (where event_name = 'page_ping')
{%- endmacro %}

{#- Share of a page that was seen, in whole per cent: as far as it was scrolled, and the window. -#}
{% macro share_seen(scrolled, window, page) -%}
    round(100 * least(1, ({{ scrolled }} + {{ window }}) / nullif({{ page }}, 0)))
{%- endmacro %}
