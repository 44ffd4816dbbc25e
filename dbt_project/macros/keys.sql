{#- Keys of the star. All are pure functions of their input: a rebuild on another machine gives the same ones. -#}

{#-
    UUID of several values. Each part is written as <length>:<text>, a null as '-', so that no two different
    lists of parts give the same text: ('a', 'bc') and ('ab', 'c') differ, so do null and ''.
    `parts`: SQL expressions.
-#}
{% macro hash_key(parts) -%}
    cast(md5(concat(
        {%- for part in parts %}
        coalesce(length(cast({{ part }} as varchar)) || ':' || cast({{ part }} as varchar), '-')
        {%- if not loop.last %},{% endif %}
        {%- endfor %}
    )) as uuid)
{%- endmacro %}

{#- Key of the unknown member of every dimension. -#}
{% macro unknown_key() -%}
    cast('00000000-0000-0000-0000-000000000000' as uuid)
{%- endmacro %}

{#- Key of a calendar day, yyyymmdd. -#}
{% macro date_key(instant) -%}
    cast(year({{ instant }}) * 10000 + month({{ instant }}) * 100 + day({{ instant }}) as integer)
{%- endmacro %}
