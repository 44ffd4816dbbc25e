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
    {%- set tables = scd_followed(o['changes_in'], ['table', 'rows', 'lookup', 'slices']) -%}
    {%- set standing = scd_standing(tables, compiled_code ~ tojson(o)) -%}
    {%- if existing is not none and not existing.is_table -%}
        {%- do adapter.drop_relation(existing) -%}
        {%- set existing = none -%}
    {%- endif -%}
    {%- set told = 'nothing new' -%}
    {%- if existing is none or should_full_refresh()
            or (standing['why'] is not none
                and scd_schema_change(target, scd_shape('select * from (' ~ compiled_code ~ ') as scd_all')) == 'rebuild') -%}
        {%- do heal_check_feeds(o) -%}
        {%- do scd_execute("create or replace table " ~ target ~ " as " ~ compiled_code) -%}
        {%- do scd_unique_or_refuse(target, o['unique_key']) -%}
        {%- set rows = scd_query("select count(*) from " ~ target)[0][0] -%}
        {%- set told = 'built whole, ' ~ rows ~ ' rows' -%}
        {%- do scd_execute("insert into " ~ scd_state_relation('rewrites') ~ " values (" ~ scd_text(scd_own_name()) ~ ", "
            ~ scd_text(invocation_id) ~ ", " ~ standing['now'] ~ ", null, " ~ scd_text(standing['why'] or ('full refresh' if should_full_refresh() else 'there was none'))
            ~ ", 0, " ~ rows ~ ")") -%}
        {%- do scd_note_build(standing) -%}
    {%- elif standing['why'] is not none or scd_anything_new(standing) -%}
        {%- set written = heal_rewrite(o, standing, target) -%}
        {%- set told = written['told'] -%}
        {#- What follows no feed is computed each time; only what was new is worth a note. -#}
        {%- if o['changes_in'] or written['rows'] %}{% do scd_note_build(standing) %}{% endif -%}
    {%- endif -%}
    {%- call noop_statement('main', told) -%} {%- endcall -%}

    {#- A comment is an alteration to those who follow this table, for whom everything would be new. -#}
    {%- if told.startswith('built whole') %}{% do persist_docs(target, model) %}{% endif -%}
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
    {%- for feed in o['changes_in'] if feed.get('slices') -%}
        {%- if feed.get('lookup') or feed.get('rows') -%}
            {%- do scd_refuse("changes_in of " ~ feed['table'] ~ " names slices and rows; a change concerns the ones or the others.") -%}
        {%- elif not o['slice_by'] -%}
            {%- do scd_refuse("changes_in of " ~ feed['table'] ~ " names slices, and there is no slice_by that says which rows they have.") -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(o) }}
{%- endmacro %}

{#- A lookup's columns: (here, in the dimension) pairs, of a name, a list of names or {here: there}. -#}
{% macro heal_lookup(feed) -%}
    {%- if feed['lookup'] is mapping %}{{ return(feed['lookup'].items() | list) }}{% endif -%}
    {%- set pairs = [] -%}
    {%- for name in scd_list(feed['lookup']) %}{% do pairs.append((name, name)) %}{% endfor -%}
    {{ return(pairs) }}
{%- endmacro %}

{#-
    The slices a row of a followed table lies in, as expressions there: one, named as here, unless the feed says otherwise.
    With a window that slides they are several.
-#}
{% macro heal_slices(o, feed) -%}
    {{ return(scd_list(feed.get('slices', o['slice_by']))) }}
{%- endmacro %}

{#- Names of one side of a lookup, quoted and joined. -#}
{% macro heal_side(feed, side) -%}
    {%- set names = [] -%}
    {%- for pair in heal_lookup(feed) %}{% do names.append(adapter.quote(pair[side])) %}{% endfor -%}
    {{ return(names | join(', ')) }}
{%- endmacro %}

{#-
    Have the engine plan, over no rows, what the first change will ask: whether the columns a feed names are there, in the
    feed and where the rows come from, and can be compared. A plan that fails names the column.
-#}
{% macro heal_check_feeds(o) -%}
    {%- for feed in o['changes_in'] if o['slice_by'] -%}
        {%- set table = adapter.quote(this.database) ~ '.' ~ feed['table'] -%}
        {%- if feed.get('lookup') -%}
            {%- set there = heal_side(feed, 1) -%}
            {%- set here = "(" ~ heal_side(feed, 0) ~ ") in (select heal_key from (select (" ~ there ~ ") as heal_key from "
                ~ table ~ ") as heal_there) and " ~ o['event_time'] ~ " is not null and (" ~ scd_quoted(o['unique_key'])
                ~ ") is not null" -%}
            {%- set there = there ~ ", valid_from, valid_to" -%}
        {%- elif feed.get('rows') -%}
            {%- set there = scd_quoted(scd_list(feed['rows'])) -%}
            {%- set here = "(" ~ there ~ ") is not null" -%}
        {%- else -%}
            {%- set there = heal_slices(o, feed) | join(', ') -%}
            {%- set here = "([" ~ there ~ "]) is not null" -%}
        {%- endif -%}
        {%- do scd_query("select " ~ there ~ " from " ~ table ~ " limit 0") -%}
        {%- do scd_query("select 1 from (" ~ compiled_code.replace(touched_rows(), here) ~ ") as heal_model limit 0") -%}
    {%- endfor -%}
{%- endmacro %}

{#- Bring the table up to date; returns what was done, for the log. -#}
{% macro heal_rewrite(o, standing, target) -%}
    {%- set reasons = [] -%}
    {%- if standing['why'] is not none or not o['slice_by'] -%}
        {%- set sql = compiled_code -%}
        {%- set old = 'true' -%}
        {%- do reasons.append({'when': 'true', 'is': standing['why'] or 'what it is made of changed'}) -%}
    {%- else -%}
        {%- set conditions, sources, arrived = [], [], ['false'] -%}
        {%- for feed in o['changes_in'] -%}
            {%- set touched = heal_touched(o, standing, target, feed, 'heal_' ~ loop.index) -%}
            {%- do conditions.append(touched['may']) -%}
            {%- do sources.append(touched.get('source', touched['may'])) -%}
            {%- if not feed.get('lookup') %}{% do arrived.append(touched['may']) %}{% endif -%}
            {%- do reasons.append({'when': touched['does'], 'is': heal_reason(feed), 'looked_up': feed.get('lookup') and true}) -%}
        {%- endfor -%}
        {#- A row that has only just arrived came for itself, whatever it looks up. -#}
        {%- for reason in reasons if reason['looked_up'] -%}
            {%- do reason.update({'when': reason['when'] ~ " and (" ~ scd_in(o['unique_key'], 'scd_old') ~ " or (" ~ arrived | join(' or ')
                ~ ") is not true)"}) -%}
        {%- endfor -%}
        {%- set bounds = heal_bounds(o) -%}
        {%- set old = bounds ~ ' and (' ~ conditions | join(' or ') ~ ')' -%}
        {%- set sql = compiled_code.replace(touched_rows(), bounds ~ ' and (' ~ sources | join(' or ') ~ ')') -%}
        {#- What lies in a touched slice may lie in others, too, of which not everything was taken. -#}
        {%- if sources != conditions %}{% set sql = 'select * from (' ~ sql ~ ') as heal_model where ' ~ old %}{% endif -%}
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
        ~ "count(*) filter (where not heal_added), count(*) filter (where heal_added) from (select " ~ slice ~ " as slice, "
        ~ why ~ " as why, heal_added from (select *, false as heal_added from scd_removed union all "
        ~ "select *, true as heal_added from scd_added)) "
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
    Make the temporary table `name` of what a feed has touched; returns conditions on a row: `may`, that it has to be
    computed again, `does`, that this feed is a reason if it turns out to be another, and, where it is put otherwise there,
    `source`, that it is needed for that where the rows come from.

    A feed names slices (the default: those its changed rows lie in; `slices` says by which expressions where it is not
    the one of this table), rows (`rows`: those that share these columns with a changed row), or what rows look up
    (`lookup`: those whose version changed at their time).

    Rows of a lookup are named by their unique key, and looked for in the table and, by the model's own SELECT, where they
    come from: one that was left out for want of its dimension comes with it. There, keys and the outermost times
    are a hash join with bounds; the intervals themselves would be a join by inequality, 10 times the time on 20 M rows, and
    are asked of the few rows that differ.
-#}
{% macro heal_touched(o, standing, target, feed, name) -%}
    {%- set changed = scd_changed_rows(feed['table'], standing) -%}
    {%- if feed.get('lookup') -%}
        {%- set intervals = name ~ '_intervals' -%}
        {%- do heal_changed_intervals(feed, changed, intervals) -%}
        {%- set bounds = scd_query("select min(heal_from)::varchar, max(heal_to)::varchar, typeof(min(heal_from)) from " ~ intervals)[0] -%}
        {%- set near = "((" ~ heal_side(feed, 0) ~ ") in (select (heal_key) from " ~ intervals ~ ")"
            ~ heal_between(o['event_time'], bounds) ~ ")" -%}
        {%- set keys = scd_quoted(o['unique_key']) -%}
        {%- do scd_execute("create or replace temp table " ~ name ~ " as select " ~ keys ~ ", " ~ o['event_time'] ~ " as heal_at from "
            ~ target ~ " where " ~ near ~ " union select " ~ keys ~ ", " ~ o['event_time'] ~ " as heal_at from ("
            ~ compiled_code.replace(touched_rows(), near) ~ ") as heal_model") -%}
        {{ return({
            'may': scd_in(o['unique_key'], name),
            'does': "exists (select 1 from " ~ intervals ~ " where heal_key = (" ~ heal_side(feed, 0) ~ ") and heal_from <= "
                ~ o['event_time'] ~ " and heal_to > " ~ o['event_time'] ~ ")",
        }) }}
    {%- elif feed.get('rows') -%}
        {%- set columns = scd_list(feed['rows']) -%}
        {%- do scd_execute("create or replace temp table " ~ name ~ " as select distinct " ~ scd_quoted(columns) ~ " from " ~ changed) -%}
        {%- set condition = scd_in(columns, name) -%}
    {%- else -%}
        {%- set source = [] -%}
        {%- for slice in heal_slices(o, feed) %}{% do source.append(scd_among(slice, 'heal_slice', name)) %}{% endfor -%}
        {%- do scd_execute("create or replace temp table " ~ name ~ " as select distinct unnest(["
            ~ heal_slices(o, feed) | join(', ') ~ "]) as heal_slice from " ~ changed) -%}
        {%- set condition = scd_among(o['slice_by'], 'heal_slice', name) -%}
        {{ return({'may': condition, 'does': condition, 'source': '(' ~ source | join(' or ') ~ ')' if feed.get('slices') else condition}) }}
    {%- endif -%}
    {{ return({'may': condition, 'does': condition}) }}
{%- endmacro %}

{#-
    Make the temporary table `name`: natural key and the times at which another version, or another image of it, is valid
    now than before. Of a version that only ends elsewhere, that is what lies between the two ends; to a model that says
    how long a version is valid, or whether it is the current one, that is another image.
-#}
{% macro heal_changed_intervals(feed, changed, name) -%}
    {%- set ends = modules.re.sub("\\w+\\.valid_to, cast\\('infinity' as timestamp\\)", '', compiled_code) -%}
    {%- set left_out = ['rowid', 'snapshot_id', 'change_type', 'valid_to']
        + ([] if 'is_current' in ends else ['is_current']) -%}
    {%- set image = 'heal_until, ' if 'valid_to' in ends else '' -%}
    {%- do scd_execute(
        "create or replace temp table heal_versions as select * exclude (" ~ left_out | join(', ') ~ "), "
        ~ "(" ~ heal_side(feed, 1) ~ ") as heal_key, "
        ~ "coalesce(valid_to, cast('infinity' as timestamp)) as heal_until, "
        ~ "change_type in ('insert', 'update_postimage') as heal_is_new from " ~ changed
    ) -%}
    {%- do scd_execute(
        "create or replace temp table " ~ name ~ " as with images as (select * exclude (heal_until, heal_is_new), " ~ image
        ~ "min(heal_until) as heal_first_end, max(heal_until) as heal_last_end, "
        ~ "count(*) filter (where heal_is_new) = count(*) filter (where not heal_is_new) as heal_same_image "
        ~ "from heal_versions group by all) "
        ~ "select heal_key, "
        ~ "case when heal_same_image then heal_first_end else valid_from end as heal_from, heal_last_end as heal_to from images "
        ~ "where heal_key is not null and (not heal_same_image or heal_first_end < heal_last_end)"
    ) -%}
{%- endmacro %}

{#-
    ` and …` of a time that lies in [lo, hi), with literals, by which the engine leaves out files and row groups.

      bounds  (lo, hi, type) as texts; in a zone the text of a time has its offset, so it is read as it was written
-#}
{% macro heal_between(time, bounds) -%}
    {%- set parts = [] -%}
    {%- for sign, bound in [('>=', bounds[0]), ('<', bounds[1])] if bound is not none and 'infinity' not in bound -%}
        {%- do parts.append(" and " ~ time ~ " " ~ sign ~ " cast(" ~ scd_text(bound) ~ " as " ~ bounds[2] ~ ")") -%}
    {%- endfor -%}
    {{ return(parts | join) }}
{%- endmacro %}

{#-
    Condition on the time of a row that holds for all that is touched, in whole days, for the table may have the day only
    of what has a time where it comes from. `true` where a feed names rows without their time or slices of its own, where
    slices are no days, and where one has no time or an infinite one.
-#}
{% macro heal_bounds(o) -%}
    {%- if not o['by_day'] or o['changes_in'] | selectattr('rows', 'defined') | list
            or o['changes_in'] | selectattr('slices', 'defined') | list %}{{ return('true') }}{% endif -%}
    {%- set parts = [] -%}
    {%- for feed in o['changes_in'] -%}
        {%- set day = 'cast(' ~ ('heal_at' if feed.get('lookup') else 'heal_slice') ~ ' as date)' -%}
        {%- do parts.append("select min(" ~ day ~ ") as lo, max(" ~ day ~ ") as hi, "
            ~ "coalesce(bool_or(" ~ day ~ " is null or not isfinite(" ~ day ~ ")), false) as timeless from heal_" ~ loop.index) -%}
    {%- endfor -%}
    {%- set bounds = scd_query("select min(lo)::varchar, (max(hi) + interval 1 day)::varchar, 'timestamp', bool_or(timeless) from ("
        ~ parts | join(' union all ') ~ ")")[0] -%}
    {%- if bounds[3] %}{{ return('true') }}{% endif -%}
    {%- if bounds[0] is none %}{{ return('false') }}{% endif -%}
    {{ return('true' ~ heal_between(o['event_time'], bounds)) }}
{%- endmacro %}
