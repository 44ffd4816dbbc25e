-- A table in silver or gold that no model makes any more would be published with rows no gate has looked at.
{%- set left = tables_without_model() | map('join', '.') | list if execute else [] %}
{%- if left %}
    {{ exceptions.raise_compiler_error("no model makes " ~ left | join(', ') ~ ". Drop what is not wanted: "
        ~ "dbt run-operation drop_tables_without_model --args '{tables: [" ~ left | join(', ') ~ "]}'") }}
{%- endif %}
select null as table_name
where false
