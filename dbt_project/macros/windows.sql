{#-
    Windows of event time. Half-open, [window_start, window_end): an event at the very end of one is in the next. They begin at
    multiples of five minutes since midnight, UTC, whatever arrived when.
-#}

{#- Start of the window of five minutes an instant lies in. -#}
{% macro window_start(instant) -%}
    time_bucket(interval '5 minutes', {{ instant }})
{%- endmacro %}

{#- Starts of the windows an instant lies in, if one of `count` times five minutes begins every five: a list of expressions. -#}
{% macro window_starts(instant, count=1) -%}
    {%- set starts = [] -%}
    {%- for place in range(count) -%}
        {%- do starts.append(window_start(instant) ~ (" - interval '" ~ 5 * place ~ " minutes'" if place else '')) -%}
    {%- endfor -%}
    {{ return(starts) }}
{%- endmacro %}

{#- After so long without an event a session has ended: the usual definition in web analytics. -#}
{% macro session_gap() -%}
    interval '30 minutes'
{%- endmacro %}
