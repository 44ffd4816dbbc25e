{#-
    Writing a result as the difference to what is there: rows that are the same stay untouched, so that running again
    writes nothing and the change feed of a table tells what really changed.
-#}

{#-
    Compare and write.

      target  relation that is there
      new     name of the temporary table with the rows that should be there
      old     name of the temporary table with the rows they take the place of, and their scd_rowid
      key     columns that identify a row of the target
      others  rows of the target outside `old` might have the same key: look

    Returns {'removed': n, 'added': n}; the temporary tables scd_removed and scd_added hold the rows.
-#}
{% macro scd_write_difference(target, new, old, key, others=false) -%}
    {%- set names = scd_quoted(scd_column_names(target)) -%}
    {%- do scd_execute(
        "create or replace temp table scd_removed as select " ~ names ~ " from " ~ old ~ " except all select " ~ names
        ~ " from " ~ new
    ) -%}
    {%- do scd_execute(
        "create or replace temp table scd_added as select " ~ names ~ " from " ~ new ~ " except all select " ~ names
        ~ " from " ~ old
    ) -%}
    {%- set counts = scd_query("select (select count(*) from scd_removed), (select count(*) from scd_added)")[0] -%}
    {%- do scd_unique_or_refuse(new, key) -%}
    {%- if counts[0] -%}
        {%- do scd_execute(
            "delete from " ~ target ~ " where rowid in (select scd_rowid from " ~ old ~ " where "
            ~ scd_in(key, 'scd_removed') ~ ")"
        ) -%}
    {%- endif -%}
    {%- if counts[1] -%}
        {#- Rows that only changed keep their key, and nobody else has it; new ones cost a look at every key. -#}
        {%- if others and scd_query("select exists (select 1 from scd_added where (" ~ scd_in(key, 'scd_removed') ~ ") is not true)")[0][0] -%}
            {%- do scd_unknown_or_refuse(target, 'scd_added', key) -%}
        {%- endif -%}
        {%- do scd_execute("insert into " ~ target ~ " (" ~ names ~ ") select " ~ names ~ " from scd_added") -%}
    {%- endif -%}
    {{ return({'removed': counts[0], 'added': counts[1]}) }}
{%- endmacro %}

{#- Condition that a row shares these columns with a row of a table; nulls are equal, which `in` alone does not see. -#}
{% macro scd_in(columns, name) -%}
    {%- if columns | length == 1 -%}
        {{ return(scd_among(adapter.quote(columns[0]), adapter.quote(columns[0]), name)) }}
    {%- endif -%}
    {{ return('(' ~ scd_quoted(columns) ~ ') in (select (' ~ scd_quoted(columns) ~ ') from ' ~ name ~ ')') }}
{%- endmacro %}

{% macro scd_among(expression, column, name) -%}
    {{ return(
        '(' ~ expression ~ ' in (select ' ~ column ~ ' from ' ~ name ~ ') or (' ~ expression
        ~ ' is null and exists (select 1 from ' ~ name ~ ' where ' ~ column ~ ' is null)))'
    ) }}
{%- endmacro %}

{#- Refuse rows of which two have one key. -#}
{% macro scd_unique_or_refuse(relation, key) -%}
    {%- set clash = scd_query("select count(*) from (select 1 from " ~ relation ~ " group by " ~ scd_quoted(key)
        ~ " having count(*) > 1)")[0][0] -%}
    {%- if clash -%}
        {%- do scd_refuse(clash ~ " values of its key (" ~ key | join(', ') ~ ") come more than once. The key must be unique.") -%}
    {%- endif -%}
{%- endmacro %}

{#- Refuse rows whose key a row of the target has, which is none of those they take the place of. -#}
{% macro scd_unknown_or_refuse(target, added, key) -%}
    {%- set clash = scd_query("select count(*) from " ~ target ~ " where " ~ scd_in(key, added))[0][0] -%}
    {%- if clash -%}
        {%- do scd_refuse(clash ~ " rows to be written have a key (" ~ key | join(', ') ~ ") that a row elsewhere in "
            ~ target ~ " has. The key must be unique.") -%}
    {%- endif -%}
{%- endmacro %}

{% macro scd_column_names(relation) -%}
    {%- set names = [] -%}
    {%- for row in scd_query("select column_name from (describe " ~ relation ~ ")") %}{% do names.append(row[0]) %}{% endfor -%}
    {{ return(names) }}
{%- endmacro %}

{#- Names and types of what a query gives: {name: type}. -#}
{% macro scd_shape(sql) -%}
    {%- set shape = {} -%}
    {%- for row in scd_query("describe " ~ sql) %}{% do shape.update({row[0]: row[1]}) %}{% endfor -%}
    {{ return(shape) }}
{%- endmacro %}

{#-
    Whether the table that is there can hold the rows to come: 'same', or 'rebuild' when columns were added or widened.
    Refuses what would lose something: a column that is gone, a type that holds less.
-#}
{% macro scd_schema_change(target, shape) -%}
    {%- set present = scd_shape("select * from " ~ target) -%}
    {%- set verdict = {'is': 'same'} -%}
    {%- for name, type in present.items() -%}
        {%- if name not in shape -%}
            {%- do scd_refuse("column '" ~ name ~ "' is in " ~ target ~ " and no longer in the model. To give it up, run "
                ~ "with --full-refresh.") -%}
        {%- elif shape[name] != type -%}
            {%- if not scd_widens(type, shape[name]) -%}
                {%- do scd_refuse("column '" ~ name ~ "' is " ~ type ~ " in " ~ target ~ " and would become " ~ shape[name]
                    ~ ", which cannot hold all its values. Keep the type, or run with --full-refresh.") -%}
            {%- endif -%}
            {%- do verdict.update({'is': 'rebuild'}) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if shape.keys() | list != present.keys() | list %}{% do verdict.update({'is': 'rebuild'}) %}{% endif -%}
    {{ return(verdict['is']) }}
{%- endmacro %}

{#- Whether every value of one type is a value of the other. -#}
{% macro scd_widens(old, new) -%}
    {%- set digits = {'TINYINT': 3, 'UTINYINT': 3, 'SMALLINT': 5, 'USMALLINT': 5, 'INTEGER': 10, 'UINTEGER': 10, 'BIGINT': 19,
        'UBIGINT': 20, 'HUGEINT': 39} -%}
    {%- set signed = ['TINYINT', 'SMALLINT', 'INTEGER', 'BIGINT', 'HUGEINT'] -%}
    {%- set bits = {'TINYINT': 8, 'UTINYINT': 8, 'SMALLINT': 16, 'USMALLINT': 16, 'INTEGER': 32, 'UINTEGER': 32, 'BIGINT': 64,
        'UBIGINT': 64, 'HUGEINT': 128} -%}
    {%- set decimal = modules.re.compile('^DECIMAL\\((\\d+),(\\d+)\\)$') -%}
    {%- set from_decimal, to_decimal = decimal.match(old), decimal.match(new) -%}
    {%- if new == 'VARCHAR' %}{{ return(true) }}{% endif -%}
    {%- if old in bits and new in bits -%}
        {%- if (old in signed) == (new in signed) %}{{ return(bits[new] > bits[old]) }}{% endif -%}
        {{ return(new in signed and bits[new] > bits[old]) }}
    {%- endif -%}
    {%- if to_decimal -%}
        {%- set whole, scale = to_decimal.group(1) | int - to_decimal.group(2) | int, to_decimal.group(2) | int -%}
        {%- if old in digits %}{{ return(whole >= digits[old]) }}{% endif -%}
        {%- if from_decimal -%}
            {{ return(scale >= from_decimal.group(2) | int
                and whole >= from_decimal.group(1) | int - from_decimal.group(2) | int) }}
        {%- endif -%}
    {%- endif -%}
    {{ return((old, new) in [('FLOAT', 'DOUBLE'), ('DATE', 'TIMESTAMP'), ('INTEGER', 'DOUBLE'), ('SMALLINT', 'DOUBLE'),
        ('TINYINT', 'DOUBLE')]) }}
{%- endmacro %}
