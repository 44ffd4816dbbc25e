{#-
    Schemas are named exactly as configured (silver, gold), in every target.
    A model outside the known folders has no schema: better to stop than to write it somewhere.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- if custom_schema_name -%}
        {{ custom_schema_name | trim }}
    {%- elif node.resource_type == 'model' -%}
        {{ exceptions.raise_compiler_error(
            "Model '" ~ node.name ~ "' has no schema: put it into one of the folders configured in dbt_project.yml."
        ) }}
    {%- else -%}
        {{ target.schema }}
    {%- endif -%}
{%- endmacro %}
