{#-
    Keys that facts refer to at a time when the change log does not know them yet, or ever.

    Renders one SELECT: natural key, valid_to. Such a member is valid from the beginning of time until the first
    real version starts (null: there is none). With it an as-of join finds exactly one row for every fact.

      history      result of scd2_history (relation or CTE)
      sightings    relation or CTE with the natural key and `seen_at`
      natural_key  column that names the thing
-#}
{% macro inferred_members(history, sightings, natural_key) -%}
select
    seen.{{ natural_key }},
    known.valid_from as valid_to
from (
    select
        {{ natural_key }},
        min(seen_at) as first_seen_at
    from {{ sightings }}
    where {{ natural_key }} is not null
    group by {{ natural_key }}
) as seen
left join (
    select
        {{ natural_key }},
        valid_from
    from {{ history }}
    where version = 1
) as known on seen.{{ natural_key }} = known.{{ natural_key }}
where known.valid_from is null or seen.first_seen_at < known.valid_from
{%- endmacro %}
