{#-
    History (slowly changing dimension, type 2) as a pure function of a change log.

    Renders one SELECT: one row per version of each key. No clock, no state, no look at an earlier result:
    any order of arrival of the same changes gives the same rows.

    Arguments
      relation     the change log: a relation or the name of a CTE; exact redeliveries already removed
      natural_key  column, or list of columns, that names the thing
      sequence_by  columns that order the changes of one key; together unique for each key
      valid_from   column with the time of the change at the source; never null
      tracked      columns whose change makes a version
      is_delete    boolean column: the change is a delete

    Result: natural key, version (1..n), tracked columns, valid_from, valid_to, is_current, is_deleted

    Rules
      1. Changes count in the order of `sequence_by`, not of their clock. When the clock runs backwards,
         a version starts no earlier than the change before it (running maximum).
      2. Of several changes of a key at one instant only the last makes a version: no interval is empty.
      3. Neighbours with equal tracked columns and equal deleted flag are one version; null equals null only.
      4. A delete ends the version and starts a deleted one, which carries the last attributes (a delete often
         brings the key only), until the key comes back. A delete with nothing before it carries its own image.
      5. Intervals are half-open, [valid_from, valid_to); valid_to is null while open;
         current = open and not deleted.
-#}
{% macro scd2_history(relation, natural_key, sequence_by, valid_from, tracked, is_delete) -%}
{%- set keys = [natural_key] if natural_key is string else natural_key -%}
{%- set by_key = keys | join(', ') -%}
with scd2_log as (
    select
        {{ by_key }},
        {{ is_delete }} as is_deleted,
        -- rule 4: the image of the last change that was not a delete; a struct, so that a null stays a value
        case
            when {{ is_delete }}
                then last_value(
                    case when not {{ is_delete }} then struct_pack(
                        {%- for column in tracked %}{{ column }} := {{ column }}{{ ', ' if not loop.last }}{% endfor -%}
                    ) end ignore nulls
                ) over in_sequence
        end as scd2_carried,
        {%- for column in tracked %}
        {{ column }},
        {%- endfor %}
        -- rule 1
        max({{ valid_from }}) over in_sequence as valid_from,
        -- rule 2: the running maximum grows with the next change exactly if that one is later
        lead({{ valid_from }}) over in_sequence as scd2_next_from,
        lead(true, 1, false) over in_sequence as scd2_has_next
    from {{ relation }}
    window in_sequence as (
        partition by {{ by_key }}
        order by {{ sequence_by | join(', ') }}
        rows between unbounded preceding and current row
    )
),

scd2_states as (
    select
        {{ by_key }},
        {%- for column in tracked %}
        case when scd2_carried is null then {{ column }} else scd2_carried.{{ column }} end as {{ column }},
        {%- endfor %}
        valid_from,
        is_deleted
    from scd2_log
    where not scd2_has_next or scd2_next_from > valid_from
),

scd2_compared as (
    select
        *,
        -- rule 3: a first state has nothing before it, and is_deleted is never null
        (
            lag(is_deleted) over in_time is distinct from is_deleted
            {%- for column in tracked %}
            or lag({{ column }}) over in_time is distinct from {{ column }}
            {%- endfor %}
        ) as scd2_is_new
    from scd2_states
    window in_time as (partition by {{ by_key }} order by valid_from)
),

scd2_versions as (
    select
        * exclude (scd2_is_new),
        row_number() over in_time as version,
        lead(valid_from) over in_time as valid_to
    from scd2_compared
    where scd2_is_new
    window in_time as (partition by {{ by_key }} order by valid_from)
)

select
    {{ by_key }},
    cast(version as integer) as version,
    {%- for column in tracked %}
    {{ column }},
    {%- endfor %}
    valid_from,
    valid_to,
    valid_to is null and not is_deleted as is_current,
    is_deleted
from scd2_versions
{%- endmacro %}
