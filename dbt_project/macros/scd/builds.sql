{#-
    What a model was last built from, so that the next build need only look at what has changed since: the snapshot of
    the lake it read, the tables whose change feed it follows, a fingerprint of its code. Kept in `builds`, written in
    the transaction that writes the model. What is done about a change belongs to the materializations.
-#}

{#- A statement inside the model's transaction; returns its rows. -#}
{% macro scd_query(sql) -%}
    {%- call statement('scd_query', fetch_result=true, auto_begin=true) -%}{{ sql }}{%- endcall -%}
    {{ return(load_result('scd_query')['data']) }}
{%- endmacro %}

{% macro scd_execute(sql) -%}
    {%- call statement('scd_execute', auto_begin=true) -%}{{ sql }}{%- endcall -%}
{%- endmacro %}

{#- A table of the record. -#}
{% macro scd_state_relation(name) -%}
    {{ return(api.Relation.create(
        database=this.database, schema=var('state_schema', 'ops'), identifier=name, type='table'
    )) }}
{%- endmacro %}

{#-
    Make those of them that are not among the tables `present`. Sluice has made them before (sluice/ops_tables.py), with
    these very columns: on a PostgreSQL catalog only one of several models that run at once could.
-#}
{% macro scd_create_state(present) -%}
    {%- set builds = scd_state_relation('builds') -%}
    {%- set rewrites = scd_state_relation('rewrites') -%}
    {%- if builds.schema ~ '.builds' not in present or rewrites.schema ~ '.rewrites' not in present -%}
        {%- do scd_execute("create schema if not exists " ~ builds.without_identifier()) -%}
        {%- do scd_execute(
            "create table if not exists " ~ builds ~ " (relation varchar, snapshot_id bigint, fingerprint varchar, "
            ~ "feeds map(varchar, varchar), invocation_id varchar)"
        ) -%}
        {%- do scd_execute(
            "create table if not exists " ~ rewrites ~ " (relation varchar, invocation_id varchar, snapshot_id bigint, "
            ~ "slice varchar, reason varchar, rows_removed bigint, rows_added bigint)"
        ) -%}
    {%- endif -%}
{%- endmacro %}

{#- Name of this model in the record. -#}
{% macro scd_own_name() -%}
    {{ return(this.schema ~ '.' ~ this.identifier) }}
{%- endmacro %}

{#-
    How things stand before a build: `now` (the snapshot this transaction reads), `since` (the one the last build
    read), `present` (the tables there are, 'schema.table'), `feeds` (identity of the followed tables) and `why`
    everything has to be computed; none if the change feed tells what is to be done.

      tables  names of the followed tables, 'schema.table'
      code    SQL this model is made by
-#}
{% macro scd_standing(tables, code) -%}
    {%- set present = scd_query("select schema_name || '.' || table_name from duckdb_tables() where database_name = "
        ~ scd_text(this.database)) | map('first') | list -%}
    {%- do scd_create_state(present) -%}
    {%- set now = scd_query("select id from ducklake_current_snapshot(" ~ scd_text(this.database) ~ ")")[0][0] -%}
    {#- The functions of the lake tell a table's schema by number; its name is in the catalog, of a published form. -#}
    {%- set catalog = adapter.quote('__ducklake_metadata_' ~ this.database) -%}
    {%- set identities = {} -%}
    {%- for name, uuid, number in scd_query("select schema_name || '.' || table_name, cast(table_uuid as varchar), table_id from "
            ~ "ducklake_table_info(" ~ scd_text(this.database) ~ ") inner join " ~ catalog ~ ".ducklake_schema using (schema_id)") -%}
        {%- do identities.update({name: {'uuid': uuid, 'number': number}}) -%}
    {%- endfor -%}
    {%- set feeds = {} -%}
    {%- for table in tables -%}
        {%- if table.split('.') | length != 2 -%}
            {%- do scd_refuse("changes_in names '" ~ table ~ "'; a table is written schema.table.") -%}
        {%- endif -%}
        {%- if table not in present -%}
            {%- do scd_refuse("changes_in names '" ~ table ~ "', and the lake has no such table.") -%}
        {%- endif -%}
        {%- do feeds.update({table: identities[table]['uuid']}) -%}
    {%- endfor -%}
    {%- set fingerprint = local_md5(code ~ scd_views_read() ~ tojson(feeds.keys() | list)) -%}
    {%- set last = scd_query("select snapshot_id, fingerprint, map_entries(feeds)::varchar from "
        ~ scd_state_relation('builds') ~ " where relation = " ~ scd_text(scd_own_name())
        ~ " order by snapshot_id desc limit 1") | list -%}
    {%- set standing = {'now': now, 'since': none, 'present': present, 'feeds': feeds, 'fingerprint': fingerprint, 'why': none} -%}
    {%- if not last -%}
        {%- do standing.update({'why': 'first build'}) -%}
    {%- else -%}
        {%- do standing.update({'since': last[0][0]}) -%}
        {%- set same = scd_query("select map_entries(" ~ scd_feeds_literal(feeds) ~ ")::varchar")[0][0] -%}
        {#- Altering a table leaves no row in its change feed; it is told by number. -#}
        {%- set numbers = [] -%}
        {%- for table in tables %}{% do numbers.append("'" ~ identities[table]['number'] ~ "'") %}{% endfor -%}
        {%- set snapshots = scd_query("select count(*), coalesce(bool_or(list_has_any(changes['tables_altered'], ["
            ~ numbers | join(', ') ~ "]::varchar[])), false) from ducklake_snapshots("
            ~ scd_text(this.database) ~ ") where snapshot_id > " ~ last[0][0] ~ " and snapshot_id <= " ~ now)[0] -%}
        {%- if last[0][1] != fingerprint -%}
            {%- do standing.update({'why': 'its code changed'}) -%}
        {%- elif last[0][2] != same -%}
            {%- do standing.update({'why': 'a table it reads was replaced'}) -%}
        {%- elif not tables -%}
            {%- do standing.update({'why': 'it follows no change feed'}) -%}
        {%- elif snapshots[1] -%}
            {%- do standing.update({'why': 'a table it reads was altered'}) -%}
        {%- elif snapshots[0] != now - last[0][0] -%}
            {%- do standing.update({'why': 'the snapshots since its last build have expired'}) -%}
        {%- endif -%}
    {%- endif -%}
    {{ return(standing) }}
{%- endmacro %}

{% macro scd_feeds_literal(feeds) -%}
    map {
    {%- for table, uuid in feeds.items() %}{{ scd_text(table) }}: {{ scd_text(uuid) }}{{ ', ' if not loop.last }}{% endfor -%}
    }
    {%- if not feeds %}::map(varchar, varchar){% endif -%}
{%- endmacro %}

{#- Note what this build has read. Appended, for writers of one table must not get into each other's way. -#}
{% macro scd_note_build(standing) -%}
    {%- do scd_execute("insert into " ~ scd_state_relation('builds') ~ " values (" ~ scd_text(scd_own_name()) ~ ", "
        ~ standing['now'] ~ ", " ~ scd_text(standing['fingerprint']) ~ ", " ~ scd_feeds_literal(standing['feeds']) ~ ", "
        ~ scd_text(invocation_id) ~ ")") -%}
{%- endmacro %}

{#-
    The rows of a table that came or went between the last build and now, with rowid, snapshot_id and change_type
    ('insert', 'delete', 'update_preimage', 'update_postimage'), to be read in FROM.
-#}
{% macro scd_changed_rows(table, standing) -%}
    ducklake_table_changes({{ scd_text(this.database) }}, {{ scd_text(table.split('.')[0]) }}, {{ scd_text(table.split('.')[1]) }}, {{ standing['since'] + 1 }}, {{ standing['now'] }})
{%- endmacro %}

{#-
    Whether the change feeds hold anything at all.

    `standing` must have a `since`: there has been a build, and nothing forces a whole one.
-#}
{% macro scd_anything_new(standing) -%}
    {%- if standing['now'] == standing['since'] %}{{ return(false) }}{% endif -%}
    {%- for table in standing['feeds'] -%}
        {%- if scd_query("select 1 from " ~ scd_changed_rows(table, standing) ~ " limit 1") | list -%}
            {{ return(true) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(false) }}
{%- endmacro %}

{#-
    SQL of the views this model reads through, as the lake has it: when a view changes, so does what the model is made
    by. Tables read but not followed are refused: their changes would go unnoticed.
-#}
{% macro scd_views_read() -%}
    {%- set found = scd_reads(model.depends_on.nodes, [], []) -%}
    {%- set followed = [] -%}
    {%- for feed in config.get('changes_in', []) %}{% do followed.append(feed['table']) %}{% endfor -%}
    {%- for table in found['tables'] if followed and table not in followed -%}
        {%- do scd_refuse("it reads " ~ table ~ ", whose changes it does not follow. Add it to changes_in.") -%}
    {%- endfor -%}
    {%- if not found['views'] %}{{ return('') }}{% endif -%}
    {%- set names = [] -%}
    {%- for view in found['views'] %}{% do names.append(scd_text(view)) %}{% endfor -%}
    {{ return(scd_query(
        "select coalesce(string_agg(sql, ';' order by schema_name, view_name), '') from duckdb_views() "
        ~ "where database_name = " ~ scd_text(this.database)
        ~ " and schema_name || '.' || view_name in (" ~ names | join(', ') ~ ")"
    )[0][0]) }}
{%- endmacro %}

{#- The views and tables a model reads, views looked through: {'views': [...], 'tables': [...]}. -#}
{% macro scd_reads(ids, views, tables) -%}
    {%- for id in ids -%}
        {%- set node = graph.nodes.get(id) or graph.sources.get(id) -%}
        {%- if node -%}
            {%- set name = node.schema ~ '.' ~ (node.alias or node.identifier or node.name) -%}
            {%- if node.resource_type == 'model' and node.config.materialized in ('view', 'ephemeral') -%}
                {%- if name not in views -%}
                    {%- do views.append(name) -%}
                    {%- do scd_reads(node.depends_on.nodes, views, tables) -%}
                {%- endif -%}
            {%- elif name not in tables -%}
                {%- do tables.append(name) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return({'views': views, 'tables': tables}) }}
{%- endmacro %}
