{#-
    The intervals of one key touch: each ends where the next starts, and the last is open. Fails with the interval
    that ends into nothing.
-#}
{% test no_gaps(model, key) %}

with intervals as (

    select
        {{ key }},
        valid_from,
        valid_to,
        lead(valid_from) over (partition by {{ key }} order by valid_from, valid_to) as next_from
    from {{ model }}

)

select *
from intervals
where
    next_from > valid_to
    or (next_from is null and valid_to is not null)

{% endtest %}
