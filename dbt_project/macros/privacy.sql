{#-
    Personal data on its way into silver: as the contract says, a pseudonym (keyed hash) or masked. Bronze alone has the
    values. docs/privacy.md says why it is done in this way.
-#}

{#-
    A personal column of a bronze table, treated.

      table   name of the bronze table; its contract says how the column is treated
      column  name of the column, the same in the relation that is read

    A pseudonym is the first 32 hex digits of the HMAC-SHA256 of the value. The key is a variable of dbt's connection
    (sluice/dbt_plugin.py); the SQL names only the key's id. A view read without that very key shows masks, and another
    key is other SQL, which builds anew what reads it.

    Masked is '***' for text, null for anything else; null stays null.
-#}
{% macro personal(table, column) -%}
    {%- set treatment = personal_treatment(table, column) -%}
    {%- set name = '"' ~ column ~ '"' -%}
    {%- set masked = "case when " ~ name ~ " is not null then '***' end" -%}
    {%- if treatment['privacy'] == 'pseudonymize' -%}
        {%- set key = pseudonym_key_id() -%}
        {%- if key -%}
    case
        when {{ name }} is null then null
        when cast(getvariable('sluice_pseudonym_id') as varchar) = '{{ key }}' then left(sha256(
            cast(getvariable('sluice_pseudonym_outer') as blob)
            || unhex(sha256(cast(getvariable('sluice_pseudonym_inner') as blob) || encode(cast({{ name }} as varchar))))
        ), 32)
        else '***'
    end
        {%- else -%}
    {{ masked }}
        {%- endif -%}
    {%- elif treatment['type'] == 'varchar' -%}
    {{ masked }}
    {%- else -%}
    cast(null as {{ treatment['type'] }})
    {%- endif -%}
{%- endmacro %}

{#-
    What the contract says: {'privacy': 'pseudonymize' or 'mask', 'type': SQL type in bronze}. In a unit test, where dbt
    knows no sources, what it says of most.
-#}
{% macro personal_treatment(table, column) -%}
    {%- set usual = {'privacy': 'pseudonymize', 'type': 'varchar'} -%}
    {%- if not execute or not graph.get('sources') %}{{ return(usual) }}{% endif -%}
    {%- set source = graph.sources.values() | selectattr('source_name', 'equalto', 'bronze')
        | selectattr('name', 'equalto', table) | first -%}
    {%- if not source -%}
        {%- do exceptions.raise_compiler_error("personal: there is no bronze table '" ~ table ~ "'.") -%}
    {%- endif -%}
    {%- set meta = source.columns.get(column, {}).get('config', {}).get('meta', {}) -%}
    {%- if not meta.get('privacy') -%}
        {%- do exceptions.raise_compiler_error("personal: the contract of " ~ table ~ " has no personal column '" ~ column
            ~ "'. Set classification: personal there, and run `sluice sync`; or read the column as it is.") -%}
    {%- endif -%}
    {{ return({'privacy': meta['privacy'], 'type': source.columns[column].data_type}) }}
{%- endmacro %}

{#- Which key dbt's connection has; empty for none. -#}
{% macro pseudonym_key_id() -%}
    {%- if not execute %}{{ return('') }}{% endif -%}
    {{ return(run_query("select coalesce(cast(getvariable('sluice_pseudonym_id') as varchar), '')").rows[0][0]) }}
{%- endmacro %}
