{#-
    Each key has exactly one open row. That row is current unless it is deleted, and no other row is current.
    Fails with the keys for which this does not hold.
-#}
{% test one_current_row_per_living_key(model, key) %}

select
    {{ key }},
    count(*) filter (where valid_to is null) as open_rows,
    count(*) filter (where is_current) as current_rows,
    bool_or(is_deleted) filter (where valid_to is null) as is_deleted
from {{ model }}
group by {{ key }}
having
    count(*) filter (where valid_to is null) != 1
    or count(*) filter (where is_current is null or is_deleted is null) > 0
    or count(*) filter (where is_current != (valid_to is null and not is_deleted)) > 0

{% endtest %}
