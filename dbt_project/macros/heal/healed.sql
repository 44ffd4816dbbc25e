{#-
    A table that follows what it is made of: rewritten where something it reads has changed, and nowhere else.

    Written as the difference to what is there (scd/apply.sql), in one transaction, so its own change feed tells what
    really changed, and the models after it follow in turn. What was rewritten, and why, is kept in `rewrites`. How the
    change feed is followed: scd/builds.sql. Options: docs/scd.md, "Facts that heal".
-#}
{% materialization healed, adapter='duckdb' -%}
    {%- set target = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if not adapter.is_ducklake(target) -%}
        {%- do scd_refuse("its database is no DuckLake; the change feed it follows is DuckLake's.") -%}
    {%- endif -%}
    {%- set o = heal_options() -%}
    {%- set tables = scd_followed(o['changes_in'], ['table', 'rows', 'lookup']) -%}
    {%- set standing = scd_standing(tables, compiled_code ~ tojson(o)) -%}
    {%- if existing is not none and not existing.is_table -%}
        {%- do adapter.drop_relation(existing) -%}
        {%- set existing = none -%}
    {%- endif -%}
    {%- set told = 'nothing new' -%}
    {%- if existing is none or should_full_refresh()
            or (standing['why'] is not none
                and scd_schema_change(target, scd_shape('select * from (' ~ compiled_code ~ ') as scd_all')) == 'rebuild') -%}
        {%- do scd_execute("create or replace table " ~ target ~ " as " ~ compiled_code) -%}
        {%- do scd_unique_or_refuse(target, o['unique_key']) -%}
        {%- set rows = scd_query("select count(*) from " ~ target)[0][0] -%}
        {%- set told = 'built whole, ' ~ rows ~ ' rows' -%}
        {%- do scd_execute("insert into " ~ scd_state_relation('rewrites') ~ " values (" ~ scd_text(scd_own_name()) ~ ", "
            ~ scd_text(invocation_id) ~ ", " ~ standing['now'] ~ ", null, " ~ scd_text(standing['why'] or 'full refresh')
            ~ ", 0, " ~ rows ~ ")") -%}
        {%- do scd_note_build(standing) -%}
    {%- elif standing['why'] is not none or scd_anything_new(standing) -%}
        {%- set written = heal_rewrite(o, standing, target) -%}
        {%- set told = written['told'] -%}
        {#- What follows no feed is computed each time; only what was new is worth a note. -#}
        {%- if o['changes_in'] or written['rows'] %}{% do scd_note_build(standing) %}{% endif -%}
    {%- endif -%}
    {%- call noop_statement('main', told) -%} {%- endcall -%}

    {%- do persist_docs(target, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{%- endmaterialization %}

{#-
    Stands in a model's WHERE, where its rows' own relation is the only one in scope: in a rewrite it takes the rows that
    may be different now; in a whole build, a unit test or `dbt compile`, all.
-#}
{% macro touched_rows() -%}
    /* touched rows */ true
{%- endmacro %}

{% macro heal_options() -%}
    {%- do scd_known_options(['unique_key', 'event_time', 'slice_by', 'changes_in']) -%}
    {%- set o = {
        'unique_key': scd_list(config.get('unique_key')),
        'event_time': config.get('event_time'),
        'slice_by': config.get('slice_by'),
        'changes_in': config.get('changes_in', []),
        'by_day': config.get('event_time') and not config.get('slice_by'),
    } -%}
    {%- if not o['unique_key'] %}{% do scd_refuse("unique_key is missing: name the columns that identify a row.") %}{% endif -%}
    {%- if o['event_time'] and not o['slice_by'] -%}
        {%- do o.update({'slice_by': 'cast(' ~ o['event_time'] ~ ' as date)'}) -%}
    {%- endif -%}
    {%- if o['slice_by'] and touched_rows() not in compiled_code -%}
        {%- do scd_refuse("it rewrites slices, but its SELECT does not say of what. Put where {{ touched_rows() }} on the "
            ~ "relation its rows come from.") -%}
    {%- endif -%}
    {%- for feed in o['changes_in'] if feed.get('lookup') and not o['event_time'] -%}
        {%- do scd_refuse("changes_in looks rows up in " ~ feed['table'] ~ " as of their time; name it in event_time.") -%}
    {%- endfor -%}
    {{ return(o) }}
{%- endmacro %}

{#- Bring the table up to date; returns what was done, for the log. -#}
{% macro heal_rewrite(o, standing, target) -%}
    {%- set reasons = [] -%}
    {%- if standing['why'] is not none or not o['slice_by'] -%}
        {%- set sql = compiled_code -%}
        {%- set old = 'true' -%}
        {%- do reasons.append({'when': 'true', 'is': standing['why'] or 'what it is made of changed'}) -%}
    {%- else -%}
        {%- set conditions = [] -%}
        {%- for feed in o['changes_in'] -%}
            {%- set touched = heal_touched(o, standing, feed, 'heal_' ~ loop.index) -%}
            {%- do conditions.append(touched['may']) -%}
            {%- do reasons.append({'when': touched['does'], 'is': heal_reason(feed)}) -%}
        {%- endfor -%}
        {%- set old = heal_bounds(o) ~ ' and (' ~ conditions | join(' or ') ~ ')' -%}
        {%- set sql = compiled_code.replace(touched_rows(), old) -%}
    {%- endif -%}
    {%- do scd_execute("create or replace temp table scd_new as " ~ sql) -%}
    {%- do scd_execute("create or replace temp table scd_old as select rowid as scd_rowid, * from " ~ target ~ " where " ~ old) -%}
    {%- set written = scd_write_difference(target, 'scd_new', 'scd_old', o['unique_key'], others=old != 'true') -%}
    {%- set slice = 'cast(' ~ o['slice_by'] ~ ' as varchar)' if o['slice_by'] else 'cast(null as varchar)' -%}
    {%- set why -%}
        list_filter([
        {%- for reason in reasons %}case when {{ reason['when'] }} then {{ scd_text(reason['is']) }} end{{ ', ' if not loop.last }}{% endfor -%}
        ], lambda reason: reason is not null)
    {%- endset -%}
    {%- set names = scd_quoted(scd_column_names(target)) -%}
    {%- do scd_execute(
        "insert into " ~ scd_state_relation('rewrites') ~ " select " ~ scd_text(scd_own_name()) ~ ", " ~ scd_text(invocation_id)
        ~ ", " ~ standing['now'] ~ ", slice, array_to_string(list_sort(list_distinct(flatten(list(why)))), ', '), "
        ~ "count(*) filter (where not added), count(*) filter (where added) from (select " ~ slice ~ " as slice, " ~ why
        ~ " as why, added from (select *, false as added from scd_removed union all select *, true as added from scd_added)) "
        ~ "group by slice"
    ) -%}
    {%- set slices = scd_query("select count(distinct " ~ slice ~ ") from (select * from scd_removed union all select * from scd_added)")[0][0] -%}
    {{ return({
        'rows': written['removed'] + written['added'],
        'told': written['removed'] ~ ' rows removed, ' ~ written['added'] ~ ' added'
            ~ (' in ' ~ slices ~ ' slices' if o['slice_by'] else ''),
    }) }}
{%- endmacro %}

{% macro heal_reason(feed) -%}
    {{ return(
        'versions of ' ~ feed['table'] if feed.get('lookup') else 'rows of ' ~ feed['table']
    ) }}
{%- endmacro %}

{#-
    Make the temporary table `name` of what a feed has touched; returns two conditions on a row: `may`, that it has to be
    computed again, and `does`, that this feed is a reason if it turns out to be another.

    A feed names slices (the default: those its changed rows lie in), rows (`rows`: those that share these columns with
    a changed row), or what rows look up (`lookup`: those whose version changed at their time). Rows are looked for where
    they come from, not in the table alone: one that was left out for want of its dimension comes with it. There, keys and
    the outermost times are a hash join with bounds; the intervals themselves would be a join by inequality, 10 times the time
    on 20 M rows, and are asked of the few rows that differ.
-#}
{% macro heal_touched(o, standing, feed, name) -%}
    {%- set changed = scd_changed_rows(feed['table'], standing) -%}
    {%- if feed.get('lookup') -%}
        {%- do heal_changed_intervals(feed, changed, name) -%}
        {%- set bounds = scd_query("select min(heal_from)::varchar, max(heal_to)::varchar from " ~ name)[0] -%}
        {{ return({
            'may': "(" ~ feed['lookup'] ~ " in (select heal_key from " ~ name ~ ")"
                ~ heal_between(o['event_time'], bounds[0], bounds[1]) ~ ")",
            'does': "exists (select 1 from " ~ name ~ " where heal_key = " ~ feed['lookup'] ~ " and heal_from <= " ~ o['event_time']
                ~ " and heal_to > " ~ o['event_time'] ~ ")",
        }) }}
    {%- elif feed.get('rows') -%}
        {%- set columns = scd_list(feed['rows']) -%}
        {%- do scd_execute("create or replace temp table " ~ name ~ " as select distinct " ~ scd_quoted(columns) ~ " from " ~ changed) -%}
        {%- set condition = scd_in(columns, name) -%}
    {%- else -%}
        {%- do scd_execute("create or replace temp table " ~ name ~ " as select distinct " ~ o['slice_by']
            ~ " as heal_slice from " ~ changed) -%}
        {%- set condition = scd_among(o['slice_by'], 'heal_slice', name) -%}
    {%- endif -%}
    {{ return({'may': condition, 'does': condition}) }}
{%- endmacro %}

{#-
    Make the temporary table `name`: natural key and the times at which another version, or another image of it, is valid
    now than before. Of a version that only ends elsewhere, that is what lies between the two ends.
-#}
{% macro heal_changed_intervals(feed, changed, name) -%}
    {%- do scd_execute(
        "create or replace temp table heal_versions as select * exclude (rowid, snapshot_id, change_type, valid_to, is_current), "
        ~ "coalesce(valid_to, cast('infinity' as timestamp)) as heal_until, "
        ~ "change_type in ('insert', 'update_postimage') as heal_is_new from " ~ changed
        ~ " where " ~ feed['lookup'] ~ " is not null"
    ) -%}
    {%- do scd_execute(
        "create or replace temp table " ~ name ~ " as with images as (select * exclude (heal_until, heal_is_new), "
        ~ "min(heal_until) as heal_first_end, max(heal_until) as heal_last_end, "
        ~ "count(*) filter (where heal_is_new) = count(*) filter (where not heal_is_new) as heal_same_image "
        ~ "from heal_versions group by all) "
        ~ "select " ~ feed['lookup'] ~ " as heal_key, "
        ~ "case when heal_same_image then heal_first_end else valid_from end as heal_from, heal_last_end as heal_to from images "
        ~ "where not heal_same_image or heal_first_end < heal_last_end"
    ) -%}
{%- endmacro %}

{#- ` and …` of a time that lies in [lo, hi), with literals, by which the engine leaves out files and row groups. -#}
{% macro heal_between(time, lo, hi) -%}
    {{ return(
        (" and " ~ time ~ " >= timestamp " ~ scd_text(lo) if lo is not none and 'infinity' not in lo else '')
        ~ (" and " ~ time ~ " < timestamp " ~ scd_text(hi) if hi is not none and 'infinity' not in hi else '')
    ) }}
{%- endmacro %}

{#-
    Condition on the time of a row that holds for all that is touched. Empty where a feed names rows without their time,
    where slices are no days, and where one has no time or an infinite one.
-#}
{% macro heal_bounds(o) -%}
    {%- if not o['by_day'] or o['changes_in'] | selectattr('rows', 'defined') | list %}{{ return('true') }}{% endif -%}
    {%- set parts = [] -%}
    {%- for feed in o['changes_in'] -%}
        {%- if feed.get('lookup') -%}
            {%- do parts.append("select min(heal_from) as lo, max(heal_to) as hi, false as timeless from heal_" ~ loop.index) -%}
        {%- else -%}
            {%- set day = 'cast(heal_slice as timestamp)' -%}
            {%- do parts.append("select min(" ~ day ~ "), max(" ~ day ~ ") + interval 1 day, coalesce(bool_or(" ~ day
                ~ " is null or not isfinite(" ~ day ~ ")), false) from heal_" ~ loop.index) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set bounds = scd_query("select min(lo)::varchar, max(hi)::varchar, bool_or(timeless) from ("
        ~ parts | join(' union all ') ~ ") as touched(lo, hi, timeless)")[0] -%}
    {%- if bounds[2] %}{{ return('true') }}{% endif -%}
    {%- if bounds[0] is none %}{{ return('false') }}{% endif -%}
    {{ return('true' ~ heal_between(o['event_time'], bounds[0], bounds[1])) }}
{%- endmacro %}
