{#-
    The intervals [valid_from, valid_to) of one key are not empty and do not overlap. Fails with the interval and
    the start of the one it runs into. An open end is the end of time, so an open interval must be the last.
-#}
{% test mutually_exclusive_ranges(model, key) %}

with intervals as (

    select
        {{ key }},
        valid_from,
        coalesce(valid_to, cast('infinity' as timestamp)) as valid_before,
        lead(valid_from) over (partition by {{ key }} order by valid_from, valid_to) as next_from
    from {{ model }}

)

select *
from intervals
where
    valid_from is null
    or valid_from >= valid_before
    or next_from < valid_before

{% endtest %}
