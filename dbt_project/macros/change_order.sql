{#-
    A part of the order of a change feed's changes, as its contract has it: `changeFeed.sequence` may be one path, whose
    bronze column is _lsn, or a list, whose further parts are _seq_2, _seq_3, ... A part the contract does not have, and
    one that a change lacks (a snapshot's rows are in no transaction), comes before all others.

      table   name of the bronze table
      number  which part, from 2
-#}
{% macro change_order(table, number) -%}
    {%- set column = '_seq_' ~ number -%}
    {%- set source = (graph.sources.values() if execute and graph.get('sources') else [])
        | selectattr('source_name', 'equalto', 'bronze') | selectattr('name', 'equalto', table) | list -%}
    {%- if source and column in source[0].columns -%}
    coalesce({{ adapter.quote(column) }}, 0)
    {%- else -%}
    cast(0 as bigint)
    {%- endif -%}
{%- endmacro %}
