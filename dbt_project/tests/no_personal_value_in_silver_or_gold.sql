-- No value of a personal column of bronze stands in a text column of silver or gold: whatever way it took
-- there, no macro treated it. Whole values are compared, those of a view as whoever has the key reads it.
-- After everything that may hold one:
-- depends_on: {{ ref('stg_customer_changes') }}, {{ ref('stg_orders') }}, {{ ref('stg_events') }}
-- depends_on: {{ ref('mart_orders_wide') }}, {{ ref('mart_customer_value') }}, {{ ref('mart_daily_sales') }}
-- depends_on: {{ ref('mart_monthly_cohorts') }}, {{ ref('fct_events') }}, {{ ref('dim_customer') }}
-- depends_on: {{ ref('mart_funnel') }}, {{ ref('agg_events_5min') }}, {{ ref('agg_events_15min_sliding') }}
{%- set personal = [] %}
{%- set places = {} %}
{%- if execute %}
    {%- for node in graph.sources.values() if node.source_name == 'bronze' %}
        {%- for column in node.columns.values() if column.config.meta.get('classification') == 'personal' %}
            {%- do personal.append((node.relation_name, adapter.quote(column.name))) %}
        {%- endfor %}
    {%- endfor %}
    {%- for schema_name, table_name, column_name in run_query(
        "select schema_name, table_name, column_name from duckdb_columns() where database_name = '" ~ target.database
        ~ "' and schema_name in ('silver', 'gold') and data_type = 'VARCHAR' and column_name[1] != '_' order by all"
    ).rows %}
        {%- set relation = [target.database, schema_name, table_name] | map('tojson') | join('.') %}
        {%- do places.setdefault(relation, []).append(column_name) %}
    {%- endfor %}
{%- endif %}
with personal as (

    {% for relation, column in personal -%}
        select distinct cast({{ column }} as varchar) as personal_value
        from {{ relation }}
        where {{ column }} is not null
        union
    {% endfor -%}
    select null as personal_value
    where false

),

found as (

    {% for relation, columns in places.items() if personal -%}
        {%- for column in columns %}
        select
            '{{ relation }}' as relation,
            '{{ column }}' as column_name,
            count(*) as row_count
        from {{ relation }} as place
        semi join personal on place.{{ adapter.quote(column) }} = personal.personal_value
        union all
        {% endfor -%}
    {% endfor -%}
    select
        null as relation,
        null as column_name,
        count(*) as row_count
    from personal
    where false

)

select
    relation,
    column_name,
    row_count
from found
where row_count > 0
