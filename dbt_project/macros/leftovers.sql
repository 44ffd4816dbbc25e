{#- SELECT of the tables and views in the models' schemas that no model makes: what a deleted or renamed model left. -#}
{% macro tables_without_model() -%}
    {%- set made, schemas = [], [] -%}
    {%- if execute -%}
        {%- for model in graph.nodes.values() if model.resource_type == 'model' and model.config.materialized != 'ephemeral' -%}
            {%- set alias = (model.alias or model.name) | lower -%}
            {%- do schemas.append(model.schema | lower) -%}
            {%- do made.append(model.schema | lower ~ '.' ~ alias) -%}
            {#- The companion of a dimension with columns of type 4. -#}
            {%- if 4 in (model.config.get('columns') or {}).values() -%}
                {%- do made.append(model.schema | lower ~ '.' ~ alias ~ '_history') -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    select
        table_schema,
        table_name
    from information_schema.tables
    where
        table_catalog = '{{ target.database }}'
        and lower(table_schema) in ('{{ schemas | unique | join("', '") }}')
        and lower(table_schema || '.' || table_name) not in ('{{ made | join("', '") }}')
{%- endmacro %}

{#- Drop them; what readers saw stays in the published snapshots for as long as those are kept. -#}
{% macro drop_tables_without_model() -%}
    {%- for row in run_query(tables_without_model()) -%}
        {%- set relation = adapter.get_relation(target.database, row[0], row[1]) -%}
        {%- do adapter.drop_relation(relation) -%}
        {%- do log('dropped ' ~ relation, info=true) -%}
    {%- endfor -%}
    {%- do adapter.commit() if execute -%}
{%- endmacro %}
