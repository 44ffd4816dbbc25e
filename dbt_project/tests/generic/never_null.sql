{#-
    None of the columns is ever null: one pass over the table for all of them, where a test a column costs a pass
    each. Fails with one row per offending column and its count.
-#}
{% test never_null(model, columns) %}

with counted as (

    select
        {%- for column in columns %}
        count(*) - count({{ column }}) as {{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ model }}

)

select *
from (
    unpivot counted
    on {{ columns | join(', ') }}
    into name column_name value null_rows
)
where null_rows > 0

{% endtest %}
