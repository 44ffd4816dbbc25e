{#-
    The tables and views in the models' schemas that nothing of this project makes: what a deleted or renamed model left.
    A source, a seed, a snapshot and a dimension's companion (columns of type 4) are of the project.
    Returns a list of (schema, name).
-#}
{% macro tables_without_model() -%}
    {%- set made, schemas = [], [] -%}
    {%- for node in graph.nodes.values() if node.resource_type in ('model', 'seed', 'snapshot') -%}
        {%- set name = (node.schema ~ '.' ~ (node.alias or node.name)) | lower -%}
        {%- do made.append(name) -%}
        {%- if 4 in (node.config.get('columns') or {}).values() %}{% do made.append(name ~ '_history') %}{% endif -%}
        {%- if node.resource_type == 'model' and node.config.materialized != 'ephemeral' -%}
            {%- do schemas.append(node.schema | lower) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for source in graph.sources.values() -%}
        {%- do made.append((source.schema ~ '.' ~ source.identifier) | lower) -%}
    {%- endfor -%}
    {%- set found = [] -%}
    {#- Live views are made anew with each publication, from the files in live/. -#}
    {%- for row in run_query("select table_schema, table_name from information_schema.tables where table_catalog = '"
            ~ target.database ~ "' and not (table_type = 'VIEW' and starts_with(table_name, 'live_')) order by all") if row[0] | lower in schemas and (row[0] ~ '.' ~ row[1]) | lower not in made -%}
        {%- do found.append((row[0], row[1])) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}

{#-
    Drop those of them that are named: `--args '{tables: [gold.fct_of_old]}'`. What readers saw of them stays in the
    published snapshots for as long as those are kept.
-#}
{% macro drop_tables_without_model(tables) -%}
    {%- set left = tables_without_model() -%}
    {%- for name in tables if name.split('.') | list not in left | map('list') | list -%}
        {{ exceptions.raise_compiler_error(name ~ " is no table without a model; those are: "
            ~ (left | map('join', '.') | join(', ') or 'none')) }}
    {%- endfor -%}
    {%- for name in tables -%}
        {%- set relation = adapter.get_relation(target.database, name.split('.')[0], name.split('.')[1]) -%}
        {%- do adapter.drop_relation(relation) -%}
        {%- do log('dropped ' ~ relation, info=true) -%}
    {%- endfor -%}
    {%- do adapter.commit() -%}
{%- endmacro %}
