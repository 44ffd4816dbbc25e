{#-
    History as a pure function of a change log: SELECTs only. No clock, no state, no look at an earlier result, so any
    order of arrival of the same changes gives the same rows. The rules, with pictures: docs/scd.md. What is
    read and written, and when, belongs to replay.sql and scd.sql.
-#}

{#-
    The log in one shape, one row a change: natural key, scd_seq_1.. (its place), scd_at (its time), scd_deleted,
    scd_present (in small letters) if events may be partial, attributes. A truncate becomes a delete of each key that was there by it,
    the gaps of snapshots become deletes. A null in key, place or time raises.

      source  SQL of the log, to be read in FROM
-#}
{% macro scd_changes(o, source) -%}
{%- set q = adapter.quote -%}
{%- set keys = scd_quoted(o['keys']) -%}
with scd_source as (
    select *
    from {{ source }} as scd_log
    where {{ scd_is_change(o) }}
),

scd_rows as (
    select
        {%- for key in o['keys'] %}
        {{ scd_not_null(o, key, 'a change has no natural key') }} as {{ q(key) }},
        {%- endfor %}
        {%- for name in o['sequence_by'] %}
        {{ scd_not_null(o, name, 'a change has no place in the sequence') }} as scd_seq_{{ loop.index }},
        {%- endfor %}
        {{ scd_not_null(o, o['valid_from'], 'a change has no time') }} as scd_at,
        {{ '(' ~ o['delete_when'] ~ ') is true' if o['delete_when'] else 'false' }} as scd_deleted,
        {%- if o['present_columns'] %}
        list_transform({{ q(o['present_columns']) }}, lambda name: lower(name)) as scd_present,
        {%- endif %}
        {{ scd_quoted(o['columns']) }}
    from scd_source
)
{%- if o['truncate_when'] %},

scd_truncates as (
    select
        {%- for name in o['sequence_by'] %}
        {{ scd_not_null(o, name, 'a truncate has no place in the sequence') }} as scd_seq_{{ loop.index }},
        {%- endfor %}
        {{ scd_not_null(o, o['valid_from'], 'a truncate has no time') }} as scd_at
    from {{ source }} as scd_log
    where
        -- CASE and not AND, which may look at both its sides
        case
            when ({{ o['truncate_when'] }}) is not true then false
            {%- for key in o['keys'] %}
            when {{ q(key) }} is not null then {{ scd_error(
                "a truncate concerns every key and has none of its own: column '" ~ key ~ "' of its log is not null. "
                ~ "Find the rows with: where " ~ o['truncate_when'] ~ "; set them aside or mend their source."
            ) }}
            {%- endfor %}
            else true
        end
),

scd_gone as (
    select
        {{ scd_quoted(o['keys'], 'scd_first.') }},
        {%- for name in o['sequence_by'] %}
        scd_truncates.scd_seq_{{ loop.index }},
        {%- endfor %}
        scd_truncates.scd_at
    from scd_truncates
    inner join (
        select
            {{ keys }},
            min(row({{ scd_places(o) }})) as scd_place
        from scd_rows
        group by {{ keys }}
    ) as scd_first on row({{ scd_places(o, 'scd_truncates.') }}) >= scd_first.scd_place
)
{%- elif o['log'] == 'snapshots' and o['absent_is_delete'] %},

scd_extracts as (
    select
        scd_extract,
        lead(scd_extract) over (order by scd_extract) as scd_next_extract
    from (select distinct scd_seq_1 as scd_extract from scd_rows) as scd_taken
),

-- In the extract after this one the key is missing: it was gone by then.
scd_gone as (
    select
        {{ scd_quoted(o['keys'], 'scd_seen.') }},
        scd_extracts.scd_next_extract as scd_seq_1,
        {%- for name in o['sequence_by'][1:] %}
        null as scd_seq_{{ loop.index + 1 }},
        {%- endfor %}
        scd_extracts.scd_next_extract as scd_at
    from (
        select
            {{ keys }},
            scd_extract,
            lead(scd_extract) over (partition by {{ keys }} order by scd_extract) as scd_seen_next
        from (select distinct {{ keys }}, scd_seq_1 as scd_extract from scd_rows) as scd_appearances
    ) as scd_seen
    inner join scd_extracts on scd_seen.scd_extract = scd_extracts.scd_extract
    where
        scd_extracts.scd_next_extract is not null
        and scd_seen.scd_seen_next is distinct from scd_extracts.scd_next_extract
)
{%- endif %}

select * from scd_rows
{%- if o['truncate_when'] or (o['log'] == 'snapshots' and o['absent_is_delete']) %}

union all by name

select
    *,
    true as scd_deleted
from scd_gone
{%- endif %}
{%- endmacro %}

{#- Condition on a row of the log: it is a change of one key, neither a sighting nor a truncate. -#}
{% macro scd_is_change(o) -%}
    {%- if not o['sighting_when'] and not o['truncate_when'] %}true{% endif -%}
    {%- if o['sighting_when'] %}({{ o['sighting_when'] }}) is not true{% endif -%}
    {%- if o['sighting_when'] and o['truncate_when'] %} and {% endif -%}
    {%- if o['truncate_when'] %}({{ o['truncate_when'] }}) is not true{% endif -%}
{%- endmacro %}

{#- The columns of a change's place in the sequence. -#}
{% macro scd_places(o, prefix='') -%}
    {%- for name in o['sequence_by'] %}{{ prefix }}scd_seq_{{ loop.index }}{{ ', ' if not loop.last }}{% endfor -%}
{%- endmacro %}

{#- A column of the log that must not be null: the engine stops at the first row where it is. -#}
{% macro scd_not_null(o, name, what) -%}
    coalesce({{ adapter.quote(name) }}, {{ scd_error(
        what ~ ": column '" ~ name ~ "' of its log is null. Find the rows with: where " ~ adapter.quote(name)
        ~ " is null; set them aside or mend their source."
    ) }})
{%- endmacro %}

{#- Stops the engine at the row for which it is computed. -#}
{% macro scd_error(message) -%}
    error({{ scd_text("scd '" ~ this.identifier ~ "': " ~ message) }})
{%- endmacro %}

{#-
    The versions of each key: natural key, version, attributes with what belongs beside them, valid_from, valid_to,
    is_current, is_deleted.

      changes  name of a relation made by scd_changes
      track    of scd_track: which columns make a version
      starts   name of a relation with natural key and scd_versions_before, the versions that are not replayed
      ties     whether two changes of a key may share an instant (scd_ties). Without, each change is a state, and one
               sort of the log is saved: a quarter of the time of a long one
-#}
{% macro scd_history(o, track, changes, starts=none, ties=true) -%}
{%- set q = adapter.quote -%}
{%- set keys = scd_quoted(o['keys']) -%}
{%- set image_carried = o['deletes_happen'] and not o['present_columns'] -%}
{%- set outermost = track['versioned'] + (['scd_deleted'] if o['deletes_happen'] else []) -%}
{#- Deletes then carry no image; what follows passes over them. -#}
{%- set bare_deletes = not ties and o['deletes_happen'] -%}
with
{%- if ties %}
scd_placed as (
    select
        {{ keys }},
        scd_deleted,
        {%- if o['present_columns'] %}
        scd_present,
        {%- for name in track['columns'] %}
        -- the last value an event carried; a struct, so that a null stays a value
        last_value(case
            when not scd_deleted and (scd_present is null or list_contains(scd_present, {{ scd_text(name | lower) }}))
                then struct_pack(scd_value := {{ q(name) }})
        end ignore nulls) over scd_in_sequence as {{ q('scd_carried_' ~ name) }},
        {%- endfor %}
        bool_or(not scd_deleted) over scd_in_sequence as scd_was_there,
        {%- elif image_carried %}
        -- a delete carries the image of the last change that was none; a struct, so that a null stays a value
        case
            when scd_deleted
                then last_value(case when not scd_deleted then struct_pack(
                    {%- for name in track['columns'] %}
                    {{ q(name) }} := {{ q(name) }}{{ ',' if not loop.last }}
                    {%- endfor %}
                ) end ignore nulls) over scd_in_sequence
        end as scd_carried,
        {%- endif %}
        {%- for name in track['columns'] %}
        {{ q(name) }},
        {%- endfor %}
        -- the clock of one key never runs backwards
        {% if o['in_order_of_time'] and o['log'] == 'changes' -%}
        scd_at as valid_from,
        {%- else -%}
        max(scd_at) over scd_in_sequence as valid_from,
        {%- endif %}
        -- the running maximum grows with the next change exactly if that one is later
        lead(scd_at) over scd_in_sequence as scd_next_at,
        lead(true, 1, false) over scd_in_sequence as scd_has_next
    from {{ changes }}
    window scd_in_sequence as (
        partition by {{ keys }}
        order by
            {%- for name in o['sequence_by'] %}
            scd_seq_{{ loop.index }} nulls first,
            {%- endfor %}
            scd_deleted
            {%- for name in o['columns'] %},
            {{ q(name) }} nulls first
            {%- endfor %}
            {%- if not o['in_order_of_time'] %},
            scd_at
            {%- endif %}
        rows between unbounded preceding and current row
    )
),

-- Of several changes at one instant only the last one counts: no interval is empty.
scd_states as (
    select
        {{ keys }},
        {%- for name in track['columns'] %}
        {%- if o['present_columns'] %}
        {%- set carried = q('scd_carried_' ~ name) %}
        -- what no event has carried yet is not known; a delete with nothing before it has its own image
        case
            when {{ carried }} is not null then {{ carried }}.scd_value
            when not scd_was_there and (scd_present is null or list_contains(scd_present, {{ scd_text(name | lower) }}))
                then {{ q(name) }}
        end as {{ q(name) }},
        {%- elif image_carried %}
        case when scd_carried is null then {{ q(name) }} else scd_carried.{{ q(name) }} end as {{ q(name) }},
        {%- else %}
        {{ q(name) }},
        {%- endif %}
        {%- endfor %}
        valid_from,
        scd_deleted
    from scd_placed
    where not scd_has_next or scd_next_at > valid_from
),
{%- endif %}

scd_compared as (
    select
        {%- if ties %}
        *,
        {%- else %}
        {{ keys }},
        {{ scd_quoted(track['columns']) }},
        scd_at as valid_from,
        scd_deleted,
        {%- endif %}
        -- a first state has nothing before it
        lag(true, 1, false) over scd_in_time is not true
        {%- for name in outermost %}
        or lag({{ q(name) }}) over scd_in_time is distinct from {{ q(name) }}
        {%- endfor %} as scd_is_new
        {%- for name in track['run_last'] %},
        lag({{ q(name) }}) over scd_in_time as {{ q('scd_before_' ~ name) }}
        {%- endfor %}
        {%- for name in track['original'] %},
        first_value(case when not scd_deleted then struct_pack(scd_value := {{ q(name) }}) end ignore nulls)
            over scd_of_key as {{ q('scd_original_' ~ name) }}
        {%- endfor %}
        {%- for name in track['newest'] + track['current'] + track['run_last'] %},
        {%- if bare_deletes %}
        (last_value(case when not scd_deleted then struct_pack(scd_value := {{ q(name) }}) end ignore nulls)
            over scd_of_key).scd_value as {{ q('scd_newest_' ~ name) }}
        {%- else %}
        last_value({{ q(name) }}) over scd_of_key as {{ q('scd_newest_' ~ name) }}
        {%- endif %}
        {%- endfor %}
    from {{ 'scd_states' if ties else changes }}
    {%- set time = 'valid_from' if ties else 'scd_at' %}
    window
        scd_in_time as (partition by {{ keys }} order by {{ time }})
        {%- if track['original'] + track['newest'] + track['current'] + track['run_last'] %},
        scd_of_key as (
            partition by {{ keys }} order by {{ time }} rows between unbounded preceding and unbounded following
        )
        {%- endif %}
),
{% if track['previous'] %}
scd_remembered as (
    select
        *
        {%- for name in track['previous'] %},
        last_value(
            case when not scd_deleted and {{ q(name) }} is distinct from {{ q('scd_newest_' ~ name) }}
                then struct_pack(scd_value := {{ q(name) }})
            end ignore nulls
        ) over scd_of_key as {{ q('scd_previous_' ~ name) }}
        {%- endfor %}
    from scd_compared
    window scd_of_key as (
        partition by {{ keys }} order by valid_from rows between unbounded preceding and unbounded following
    )
),
{% endif %}
scd_versions as (
    select
        *,
        lead(valid_from) over scd_in_time as valid_to,
        {%- for name in track['run_last'] %}
        case when lead(true, 1, false) over scd_in_time
            then lead({{ q('scd_before_' ~ name) }}) over scd_in_time
            else {{ q('scd_newest_' ~ name) }}
        end as {{ q('scd_last_' ~ name) }},
        {%- endfor %}
        {% if o['deletes_happen'] and not o['keeps_deleted'] -%}
        count(*) filter (where not scd_deleted) over (scd_in_time rows between unbounded preceding and current row)
        {%- else -%}
        row_number() over scd_in_time
        {%- endif %} as version
    from {{ 'scd_remembered' if track['previous'] else 'scd_compared' }}
    where scd_is_new
    window scd_in_time as (partition by {{ keys }} order by valid_from)
)

select
    {{ scd_quoted(o['keys'], 'scd_versions.') }},
    cast(scd_versions.version {%- if starts %} + coalesce(scd_starts.scd_versions_before, 0){% endif %} as integer) as version,
    {%- for name in track['columns'] %}
    {%- if name in track['original'] %}
    case when {{ q('scd_original_' ~ name) }} is null then {{ q(name) }} else {{ q('scd_original_' ~ name) }}.scd_value end
    {%- elif name in track['newest'] %}
    {{ q('scd_newest_' ~ name) }}
    {%- elif name in track['run_last'] %}
    {{ q('scd_last_' ~ name) }}
    {%- else %}
    {{ q(name) }}
    {%- endif %} as {{ q(name) }},
    {%- if name in track['previous'] %}
    {{ q('scd_previous_' ~ name) }}.scd_value as {{ q('previous_' ~ name) }},
    {%- endif %}
    {%- if name in track['current'] %}
    {{ q('scd_newest_' ~ name) }} as {{ q('current_' ~ name) }},
    {%- endif %}
    {%- endfor %}
    valid_from,
    valid_to,
    valid_to is null and not scd_deleted as is_current,
    scd_deleted as is_deleted
from scd_versions
{%- if starts %}
left join {{ starts }} as scd_starts on
    {%- for key in o['keys'] %}
    {{ 'and ' if not loop.first }}scd_versions.{{ q(key) }} = scd_starts.{{ q(key) }}
    {%- endfor %}
{%- endif %}
{%- if o['deletes_happen'] and not o['keeps_deleted'] %}
where not scd_deleted
{%- endif %}
{%- endmacro %}

{#-
    The rows of a table: versions with their surrogate keys and, if asked for, inferred members and the unknown one.

      sightings  name of a relation with natural key and scd_seen_at, or none
      unknown    whether to add the unknown member (a replay of some keys does not)
-#}
{% macro scd_rows(o, track, changes, starts=none, ties=true, sightings=none, unknown=false, companion=false) -%}
{%- set q = adapter.quote -%}
{%- set keys = scd_quoted(o['keys']) -%}
{%- set flags = [] if companion else scd_flags(o) -%}
{%- set extra = [] -%}
{%- for name in track['columns'] -%}
    {%- do extra.append(name) -%}
    {%- if name in track['previous'] %}{% do extra.append('previous_' ~ name) %}{% endif -%}
    {%- if name in track['current'] %}{% do extra.append('current_' ~ name) %}{% endif -%}
{%- endfor -%}
with scd_found as (
    {{ scd_history(o, track, changes, starts, ties) | indent(4) }}
),

scd_members as (
    select
        * {% if o['from_beginning'] and not companion -%}
        replace (case when version = 1 then least(valid_from, {{ o['beginning'] }}) else valid_from end as valid_from)
        {%- endif %},
        false as is_inferred,
        false as is_unknown
    from scd_found
    {%- if sightings %}

    union all by name

    -- Keys referred to before their history begins, or without any: valid until it does.
    select
        {{ scd_quoted(o['keys'], 'scd_seen.') }},
        0 as version,
        -- for what was referred to before the beginning, from there on
        least({{ o['beginning'] }}, scd_seen.scd_seen_at) as valid_from,
        scd_first.scd_first_from as valid_to,
        scd_first.scd_first_from is null as is_current,
        false as is_deleted,
        true as is_inferred,
        false as is_unknown
    from (
        select
            {{ keys }},
            min(scd_seen_at) as scd_seen_at
        from {{ sightings }}
        group by {{ keys }}
    ) as scd_seen
    left join (
        select
            {{ keys }},
            {{ 'least(min(valid_from), ' ~ o['beginning'] ~ ')' if o['from_beginning'] else 'min(valid_from)' }} as scd_first_from
        from scd_found
        group by {{ keys }}
    ) as scd_first on
        {%- for key in o['keys'] %}
        {{ 'and ' if not loop.first }}scd_seen.{{ q(key) }} = scd_first.{{ q(key) }}
        {%- endfor %}
    where scd_first.scd_first_from is null or scd_seen.scd_seen_at < scd_first.scd_first_from
    {%- endif %}
    {%- if unknown %}

    union all by name

    select
        0 as version,
        {{ o['beginning'] }} as valid_from,
        null as valid_to,
        true as is_current,
        false as is_deleted,
        false as is_inferred,
        true as is_unknown
    {%- endif %}
)

select
    {% if unknown -%}
    case when is_unknown then cast('00000000-0000-0000-0000-000000000000' as uuid) else
        {{ scd_version_key(o) | indent(8) }}
    end
    {%- else -%}
    {{ scd_version_key(o) | indent(4) }}
    {%- endif %} as {{ q(o['surrogate_key']) }},
    {{ keys }},
    version,
    {%- for name in extra %}
    {{ q(name) }},
    {%- endfor %}
    valid_from,
    {% if o['open_end'] -%}
    case
        when valid_to is not null then valid_to
        when valid_from < {{ o['open_end'] }} then {{ o['open_end'] }}
        else {{ scd_error("open_end is " ~ o['open_end'] ~ ", and a version begins at or after it. Give an end that "
            ~ "nothing comes after, or leave it out: null.") }}
    end as valid_to,
    {%- else -%}
    valid_to,
    {%- endif %}
    is_current
    {%- for name in (['is_deleted'] if companion and o['keeps_deleted'] else flags) %},
    {{ name }}
    {%- endfor %}
from scd_members
{%- endmacro %}

{#-
    UUID of natural key and start of validity. Each part is written as <length>:<text>, a null as '-', so that no two
    lists of parts give the same text: ('a', 'bc') and ('ab', 'c') differ, so do null and ''. Times are whole.
-#}
{% macro scd_version_key(o) -%}
cast(md5(concat(
    {%- for key in o['keys'] %}
    coalesce(length(cast({{ adapter.quote(key) }} as varchar)) || ':' || cast({{ adapter.quote(key) }} as varchar), '-'),
    {%- endfor %}
    coalesce(length({{ scd_instant(o, 'valid_from') }}) || ':' || {{ scd_instant(o, 'valid_from') }}, '-')
)) as uuid)
{%- endmacro %}

{#- Text of a point on the time axis, which may be a number: the same for equal points in any session. -#}
{% macro scd_instant(o, expression) -%}
    {%- if o['time_type'] in ('DATE', 'TIMESTAMP', 'TIMESTAMP_S', 'TIMESTAMP_MS') -%}
        strftime({{ expression }}, '%Y-%m-%dT%H:%M:%S.%f')
    {%- elif o['time_type'] == 'TIMESTAMP WITH TIME ZONE' -%}
        strftime({{ expression }} at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%f')
    {%- else -%}
        cast({{ expression }} as varchar)
    {%- endif -%}
{%- endmacro %}

{#- A text as SQL. -#}
{% macro scd_text(value) -%}
    '{{ value | replace("'", "''") }}'
{%- endmacro %}
