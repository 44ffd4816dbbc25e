{#-
    Which keys a build has to compute, and from where on. A key is replayed from the log, never patched; where the
    clock orders the changes and the attributes ask for nothing older, from the start of the version that its
    earliest change falls into.
-#}

{#-
    Make the temporary tables of a replay by keys: scd_touched (natural key, scd_since: the earliest time at which
    anything about it changed). Returns whether the keys are known; not, when every key may be concerned.
-#}
{% macro scd_find_touched(o, standing) -%}
    {#- A new extract says something of every key, by its absence if not by its presence. -#}
    {%- if o['log'] == 'snapshots' %}{{ return(false) }}{% endif -%}
    {%- set parts = [] -%}
    {%- set sightings = [] -%}
    {%- for feed in o['changes_in'] -%}
        {#- Expressions over the table that is followed, which may call its columns otherwise than the log does. -#}
        {%- set natural = scd_list(feed.get('natural_key')) -%}
        {%- set time = feed.get('valid_from') or adapter.quote(o['valid_from']) -%}
        {%- set select -%}
            select
            {%- for key in o['keys'] %} {{ natural[loop.index0] if natural else adapter.quote(key) }} as {{ adapter.quote(key) }},{% endfor %}
            {#- A change without a time is none that could be left out: null, from the key's first change on. -#}
            {{ scd_earliest(time) }} as scd_since
            from {{ scd_changed_rows(feed['table'], standing) }}
            group by all
        {%- endset -%}
        {%- do (sightings if feed.get('sighting') else parts).append(select) -%}
    {%- endfor -%}
    {%- do scd_execute("create or replace temp table scd_changed as " ~ (parts or sightings) | join(' union all ')) -%}
    {%- set without = [] -%}
    {%- for key in o['keys'] %}{% do without.append(adapter.quote(key) ~ ' is null') %}{% endfor -%}
    {%- set nameless = scd_query("select count(*) from scd_changed where " ~ without | join(' or '))[0][0] -%}
    {%- if nameless -%}
        {#- A truncate has no key; any other change without one is refused where the whole log is read. -#}
        {{ return(false) }}
    {%- endif -%}
    {%- if parts and sightings -%}
        {#- Being referred to matters only before a key's first version. -#}
        {%- do scd_execute("insert into scd_changed select scd_seen.* from (" ~ sightings | join(' union all ')
            ~ ") as scd_seen where (" ~ without | join(' or ') ~ ") is not true "
            ~ "and not exists (select 1 from " ~ this ~ " as scd_target where version > 0 and "
            ~ scd_same_key(o, 'scd_target', 'scd_seen') ~ " and scd_target.valid_from <= scd_seen.scd_since)") -%}
    {%- endif -%}
    {%- do scd_execute("create or replace temp table scd_touched as select " ~ scd_quoted(o['keys'])
        ~ ", " ~ scd_earliest('scd_since') ~ " as scd_since from scd_changed group by " ~ scd_quoted(o['keys'])) -%}
    {{ return(true) }}
{%- endmacro %}

{#- The least of a group's values; null if one of them is null. -#}
{% macro scd_earliest(expression) -%}
    case when count(*) = count({{ expression }}) then min({{ expression }}) end
{%- endmacro %}

{% macro scd_same_key(o, left, right) -%}
    {%- for key in o['keys'] -%}
        {{ ' and ' if not loop.first }}{{ left }}.{{ adapter.quote(key) }} = {{ right }}.{{ adapter.quote(key) }}
    {%- endfor -%}
{%- endmacro %}

{#-
    Whether a key of this table may be replayed from a version's start on. Not when an attribute on one version depends
    on another version (types 0, 1 over the key, 3, 4, 6), when an event may leave a column to an older one,
    when a row may concern all keys, or when the clock does not order the changes.
-#}
{% macro scd_replays_from_version(o, track) -%}
    {{ return(
        o['in_order_of_time'] and o['log'] == 'changes' and not o['truncate_when'] and not o['present_columns']
        and not (track['original'] + track['newest'] + track['previous'] + track['current'])
    ) }}
{%- endmacro %}

{#-
    Make the temporary tables of a replay by keys:

      scd_old     the rows of the target that may change, with their scd_rowid
      scd_starts  of each touched key scd_start, from when on it is replayed (null: from its first change), and
                  scd_versions_before, the number of versions that stay

    A replay starts with the version that was valid just before anything changed; where there was none, with the first
    thing that changed. What came before is the same as ever: a version's state is that of its first change, and every
    change from its start on is read again.

    Most changes come in order and concern current versions, which lie in files of their own. The rest asks all
    versions, but reads no more of them than key and row number until it has found some.
-#}
{% macro scd_find_starts(o, track, target) -%}
    {%- set q = adapter.quote -%}
    {%- set keys = scd_quoted(o['keys']) -%}
    {%- set on_key = scd_same_key(o, 'scd_touched', 'scd_target') -%}
    {%- if not scd_replays_from_version(o, track) -%}
        {%- do scd_execute("create or replace temp table scd_starts as select " ~ keys
            ~ ", cast(null as " ~ o['time_type'] ~ ") as scd_start, 0 as scd_versions_before from scd_touched") -%}
        {%- do scd_execute("create or replace temp table scd_old as select scd_target.rowid as scd_rowid, scd_target.* from "
            ~ target ~ " as scd_target where (" ~ keys ~ ") in (select (" ~ keys ~ ") from scd_touched)") -%}
        {{ return('') }}
    {%- endif -%}
    {#- Of a version that begins with time itself, the first change is older than its start tells. -#}
    {%- set usable = "scd_target.version > " ~ (1 if o['from_beginning'] else 0)
        ~ (" and not scd_target.is_deleted" if o['keeps_deleted'] else "") ~ " and scd_target.valid_from < scd_since" -%}
    {%- do scd_execute("create or replace temp table scd_old as select scd_target.rowid as scd_rowid, scd_target.* from "
        ~ target ~ " as scd_target where is_current and (" ~ keys ~ ") in (select (" ~ keys ~ ") from scd_touched)") -%}
    {%- do scd_execute("create or replace temp table scd_starts as select " ~ scd_quoted(o['keys'], 'scd_touched.')
        ~ ", scd_target.valid_from as scd_start, scd_target.version - 1 as scd_versions_before from scd_touched "
        ~ "inner join scd_old as scd_target on " ~ on_key ~ " where " ~ usable) -%}
    {%- do scd_execute("create or replace temp table scd_late as select * from scd_touched where (" ~ keys
        ~ ") not in (select (" ~ keys ~ ") from scd_starts)") -%}
    {%- do scd_execute("create or replace temp table scd_late_rows as select scd_target.rowid as scd_rowid from "
        ~ target ~ " as scd_target where not is_current and (" ~ keys ~ ") in (select (" ~ keys ~ ") from scd_late)") -%}
    {%- if scd_query("select count(*) from scd_late_rows")[0][0] -%}
        {%- do scd_execute("insert into scd_old select scd_target.rowid, scd_target.* from " ~ target
            ~ " as scd_target where not is_current and scd_target.rowid in (select scd_rowid from scd_late_rows)") -%}
    {%- endif -%}
    {#-
        Nothing valid before: nothing older matters, but for the number of versions. Deleted versions that are kept
        carry an older image, a first version may be set back, and a sighting be older than any change: there the
        whole key is read.
    -#}
    {%- set nothing_before = 'null' if o['keeps_deleted'] or o['from_beginning'] or o['sighting_when'] else 'scd_since' -%}
    {%- set covers = usable if o['keeps_deleted'] else
        usable ~ " and (scd_target.valid_to is null or scd_target.valid_to >= scd_since)" -%}
    {%- do scd_execute("insert into scd_starts select " ~ keys ~ ", coalesce(scd_covered_from, " ~ nothing_before
        ~ ") as scd_start, case when scd_covered_from is not null then scd_covered - 1 when " ~ nothing_before
        ~ " is null then 0 else scd_earlier end from (select " ~ scd_quoted(o['keys'], 'scd_touched.')
        ~ ", any_value(scd_since) as scd_since, max(scd_target.valid_from) filter (where " ~ covers ~ ") as scd_covered_from"
        ~ ", max(scd_target.version) filter (where " ~ covers ~ ") as scd_covered"
        ~ ", coalesce(max(scd_target.version) filter (where scd_target.valid_from < scd_since), 0) as scd_earlier "
        ~ "from scd_late as scd_touched left join scd_old as scd_target on " ~ on_key
        ~ " group by " ~ scd_quoted(o['keys'], 'scd_touched.') ~ ")") -%}
    {%- do scd_execute("delete from scd_old where scd_rowid not in (select scd_rowid from scd_old as scd_target "
        ~ "inner join scd_starts on " ~ scd_same_key(o, 'scd_target', 'scd_starts')
        ~ " where scd_start is null or valid_from >= scd_start)") -%}
{%- endmacro %}

{#- SQL of the rows of the log that a replay of scd_starts needs, to be read in FROM. -#}
{% macro scd_replayed_log(o, log) -%}
    {%- set bounds = scd_query("select count(*) filter (where scd_start is null), min(scd_start)::varchar from scd_starts")[0] -%}
    {%- set time = adapter.quote(o['valid_from']) -%}
    (
        select scd_whole.*
        from {{ log }} as scd_whole
        inner join scd_starts on {{ scd_same_key(o, 'scd_whole', 'scd_starts') }}
        where (scd_start is null or {{ time }} >= scd_start)
        {%- if not bounds[0] and bounds[1] is not none %}
            -- a literal, by which the engine leaves out files and row groups
            and {{ time }} >= cast({{ scd_text(bounds[1]) }} as {{ o['time_type'] }})
        {%- endif %}
        {%- if o['truncate_when'] %}

        union all

        -- a truncate has no key and concerns every one
        select *
        from {{ log }} as scd_whole
        where ({{ o['truncate_when'] }}) is true
        {%- endif %}
    )
{%- endmacro %}
