{#-
    A dimension with history, from a change log.

    The model is a SELECT of the log: all changes there are, in any order. Written is a pure function of it
    (history.sql), as the difference to what is there (apply.sql), for the keys that changed since the last build
    (replay.sql, builds.sql), in one transaction. Options and rules: docs/scd.md.
-#}
{% materialization scd, adapter='duckdb' -%}
    {%- set target = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if not adapter.is_ducklake(target) -%}
        {%- do scd_refuse("its database is no DuckLake; the change feed and the snapshots it needs are DuckLake's.") -%}
    {%- endif -%}
    {%- set o = scd_options() -%}
    {%- set log = '(' ~ compiled_code ~ ')' -%}
    {%- do scd_check_log(o, scd_shape("select * from " ~ log ~ " as scd_log")) -%}
    {%- set tables = scd_followed(o['changes_in'], ['table', 'natural_key', 'valid_from', 'sighting']) -%}
    {%- set standing = scd_standing(tables, compiled_code ~ tojson(o)) -%}
    {%- do scd_check_feeds(o) -%}
    {%- set relations = {'main': target} -%}
    {%- if 4 in o['columns'].values() -%}
        {%- do relations.update({'history': target.incorporate(path={'identifier': this.identifier ~ '_history'})}) -%}
    {%- endif -%}

    {%- if existing is not none and not existing.is_table -%}
        {%- do adapter.drop_relation(existing) -%}
        {%- set existing = none -%}
    {%- endif -%}
    {%- set told = [] -%}
    {%- if standing['why'] is none and existing is not none and not should_full_refresh()
            and not scd_anything_new(standing) -%}
        {%- do told.append('nothing new') -%}
    {%- else -%}
        {%- set whole = standing['why'] is not none or existing is none or should_full_refresh()
            or not scd_find_touched(o, standing) -%}
        {%- for kind, relation in relations.items() -%}
            {%- do told.append(scd_build(o, kind == 'history', relation, log, whole, standing['present'])) -%}
        {%- endfor -%}
        {%- do scd_note_build(standing) -%}
    {%- endif -%}
    {%- call noop_statement('main', told | join('; ')) -%} {%- endcall -%}

    {%- do persist_docs(target, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': relations.values() | list}) }}
{%- endmaterialization %}

{#- Build one table, which may be among those `present`; returns what was done, for the log. -#}
{% macro scd_build(o, companion, relation, log, whole, present) -%}
    {%- set track = scd_track(o, companion) -%}
    {%- if (relation.schema ~ '.' ~ relation.identifier) not in present or should_full_refresh()
            or scd_schema_change(relation, scd_shape(scd_sql(o, track, log, companion))) == 'rebuild' -%}
        {{ return(scd_create(o, relation, scd_sql(o, track, log, companion, ties=scd_ties(o, log)))) }}
    {%- endif -%}
    {%- if whole -%}
        {%- do scd_execute(
            "create or replace temp table scd_new as " ~ scd_sql(o, track, log, companion, ties=scd_ties(o, log))
        ) -%}
        {%- do scd_execute("create or replace temp table scd_old as select rowid as scd_rowid, * from " ~ relation) -%}
    {%- else -%}
        {%- do scd_find_starts(o, track, relation) -%}
        {%- do scd_execute("create or replace temp table scd_log_rows as select * from " ~ scd_replayed_log(o, log)) -%}
        {%- do scd_execute(
            "create or replace temp table scd_new as "
            ~ scd_sql(o, track, 'scd_log_rows', companion, 'scd_starts', scd_ties(o, 'scd_log_rows'))
        ) -%}
    {%- endif -%}
    {%- set written = scd_write_difference(relation, 'scd_new', 'scd_old', [o['surrogate_key']]) -%}
    {%- set keys = 'all' if whole else scd_query("select count(*) from scd_starts")[0][0] -%}
    {{ return(keys ~ ' keys, ' ~ written['removed'] ~ ' rows removed, ' ~ written['added'] ~ ' added') }}
{%- endmacro %}

{#- The rows of a table as one SELECT: everything, or a replay of the keys in `starts`. -#}
{% macro scd_sql(o, track, log, companion, starts=none, ties=true) -%}
with scd_changes as (
    {{ scd_changes(o, log) | indent(4) }}
)
{%- if o['sighting_when'] and not companion %},

scd_sightings as (
    select
        {{ scd_quoted(o['keys'], 'scd_log.') }},
        {{ scd_not_null(o, o['valid_from'], 'a sighting has no time') }} as scd_seen_at
    from {{ log }} as scd_log
    {%- if starts %}
    inner join {{ starts }} as scd_starts
        on {{ scd_same_key(o, 'scd_log', 'scd_starts') }} and scd_starts.scd_start is null
    {%- endif %}
    where ({{ o['sighting_when'] }}) is true
    {%- for key in o['keys'] %} and scd_log.{{ adapter.quote(key) }} is not null{% endfor %}
)
{%- endif %}

select * from (
    {{ scd_rows(
        o, track, 'scd_changes', starts, ties,
        sightings='scd_sightings' if o['sighting_when'] and not companion else none,
        unknown=o['unknown_member'] and not companion and not starts,
        companion=companion
    ) | indent(4) }}
) as scd_dimension
{%- endmacro %}

{#-
    Whether two changes of a key share an instant, or one has no place in the sequence, which must be refused even if no
    tie asks for it; true where nothing could be saved by knowing that it is not so.
-#}
{% macro scd_ties(o, log) -%}
    {%- if not o['states_may_be_changes'] %}{{ return(true) }}{% endif -%}
    {%- set placeless = [] -%}
    {%- for name in o['sequence_by'][1:] %}{% do placeless.append(' or count(' ~ adapter.quote(name) ~ ') < count(*)') %}{% endfor -%}
    {{ return(scd_query("select exists (select 1 from " ~ log ~ " as scd_log where " ~ scd_is_change(o) ~ " group by "
        ~ scd_quoted(o['keys'] + [o['valid_from']]) ~ " having count(*) > 1" ~ placeless | join ~ ")")[0][0]) }}
{%- endmacro %}

{#- Make the table anew. Current versions are a part of their own: most changes concern them alone. -#}
{% macro scd_create(o, relation, sql) -%}
    {%- do scd_execute("create or replace table " ~ relation ~ " as select * from (" ~ sql ~ ") as scd_all limit 0") -%}
    {%- do scd_execute("alter table " ~ relation ~ " set partitioned by (is_current)") -%}
    {%- do scd_execute("insert into " ~ relation ~ " " ~ sql) -%}
    {{ return('built whole, ' ~ scd_query("select count(*) from " ~ relation)[0][0] ~ ' rows') }}
{%- endmacro %}

{#-
    Whether keys and times can be read from the tables that are followed: found out now, not with the first change.
-#}
{% macro scd_check_feeds(o) -%}
    {%- for feed in o['changes_in'] -%}
        {%- set table = adapter.quote(this.database) ~ '.' ~ feed['table'] -%}
        {%- set there = scd_shape("select * from " ~ table).keys() | map('lower') | list -%}
        {%- set natural = scd_list(feed.get('natural_key')) -%}
        {%- if natural and natural | length != o['keys'] | length -%}
            {%- do scd_refuse("changes_in of " ~ feed['table'] ~ " names " ~ natural | length ~ " parts of the natural key, "
                ~ "which has " ~ o['keys'] | length ~ ".") -%}
        {%- endif -%}
        {%- set needed = ([] if natural else o['keys']) + ([] if feed.get('valid_from') else [o['valid_from']]) -%}
        {%- for name in needed if name | lower not in there -%}
            {%- do scd_refuse(feed['table'] ~ ", followed by changes_in, has no column '" ~ name ~ "'. Say what it is there: "
                ~ "{'table': '" ~ feed['table'] ~ "', '" ~ ('valid_from' if name == o['valid_from'] else 'natural_key')
                ~ "': '<column or expression>'}.") -%}
        {%- endfor -%}
        {%- for expression in natural + scd_list(feed.get('valid_from')) -%}
            {%- do scd_query("select " ~ expression ~ " from " ~ table ~ " limit 0") -%}
        {%- endfor -%}
    {%- endfor -%}
{%- endmacro %}

{#- Every column of the log has a use, every column in use is in the log; the time has a text that is the same anywhere. -#}
{% macro scd_check_log(o, shape) -%}
    {%- set used = o['keys'] + o['columns'].keys() | list + o['sequence_by'] + [o['valid_from']] -%}
    {%- if o['snapshot_at'] %}{% do used.append(o['snapshot_at']) %}{% endif -%}
    {%- if o['present_columns'] %}{% do used.append(o['present_columns']) %}{% endif -%}
    {%- for name in used + o['control_columns'] if name not in shape -%}
        {%- do scd_refuse("column '" ~ name ~ "' is in its options but not in its log, which has "
            ~ shape.keys() | join(', ') ~ ".") -%}
    {%- endfor -%}
    {%- set used = used + o['control_columns'] + [o['delete_when'], o['truncate_when'], o['sighting_when']] -%}
    {%- set unlisted = [] -%}
    {%- for name in shape if name not in used %}{% do unlisted.append(name) %}{% endfor -%}
    {%- if unlisted -%}
        {%- do scd_refuse("its log has columns that no option mentions: " ~ unlisted | join(', ')
            ~ ". Give each a type in columns (0, 1, 2, 3, 4 or 6), name it in control_columns, or leave it out of the SELECT.") -%}
    {%- endif -%}
    {%- if o['log'] == 'snapshots' and o['sequence_by'][0] != o['snapshot_at'] -%}
        {%- do scd_refuse("a log of snapshots is ordered by its extracts: sequence_by begins with " ~ o['snapshot_at'] ~ ".") -%}
    {%- endif -%}
    {%- if o['present_columns'] and shape[o['present_columns']] != 'VARCHAR[]' -%}
        {%- do scd_refuse("present_columns '" ~ o['present_columns'] ~ "' is " ~ shape[o['present_columns']]
            ~ "; it must be VARCHAR[], the names of the columns an event carries.") -%}
    {%- endif -%}
    {%- if shape[o['valid_from']] in ('VARCHAR', 'BOOLEAN', 'BLOB') -%}
        {%- do scd_refuse("valid_from '" ~ o['valid_from'] ~ "' is " ~ shape[o['valid_from']] ~ ", whose order is not that of "
            ~ "time. Cast it to a timestamp, a date or a number.") -%}
    {%- endif -%}
    {%- do o.update({'time_type': shape[o['valid_from']]}) -%}
    {%- if o['from_beginning'] or o['sighting_when'] or o['unknown_member'] -%}
        {%- set begins = scd_shape("select " ~ o['beginning'] ~ " as beginning")['beginning'] -%}
        {%- if scd_is_date(begins) != scd_is_date(o['time_type']) -%}
            {%- do scd_refuse("beginning is " ~ begins ~ ", and valid_from '" ~ o['valid_from'] ~ "' is " ~ o['time_type']
                ~ ". Give a beginning before which nothing can have been, of the type of valid_from.") -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}

{% macro scd_is_date(type) -%}
    {{ return(type == 'DATE' or type.startswith('TIMESTAMP')) }}
{%- endmacro %}
