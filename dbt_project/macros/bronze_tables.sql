{#-
    Every table of bronze that a source was loaded into, also of one whose contract is gone: its rows and its books stay.
    Returns a list of relations.
-#}
{% macro bronze_tables() -%}
    {%- set found = [] -%}
    {%- for row in run_query("select schema_name, table_name from duckdb_tables() join duckdb_columns() "
            ~ "using (database_name, schema_name, table_name) where database_name = '" ~ target.database
            ~ "' and schema_name = 'bronze' and column_name = '_batch_id' order by all") -%}
        {%- do found.append(api.Relation.create(database=target.database, schema=row[0], identifier=row[1])) -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}
