-- No dimension with history can be forgotten: a model made by `scd`, or documenting valid_to, has all three
-- interval tests.
{%- set guards = ['mutually_exclusive_ranges', 'no_gaps', 'one_current_row_per_living_key'] %}
{%- set missing = [] %}
{%- if execute %}
    {%- for model in graph.nodes.values() if model.resource_type == 'model'
            and (model.config.materialized == 'scd' or 'valid_to' in model.columns) %}
        {%- set found = [] %}
        {%- for node in graph.nodes.values() if node.resource_type == 'test' and node.attached_node == model.unique_id %}
            {%- do found.append(node.test_metadata.name) %}
        {%- endfor %}
        {%- for guard in guards if guard not in found %}
            {%- do missing.append((model.name, guard)) %}
        {%- endfor %}
    {%- endfor %}
{%- endif %}
{% for model_name, guard in missing -%}
    select
        '{{ model_name }}' as model_name,
        '{{ guard }}' as missing_test
    union all
{% endfor -%}
select
    null as model_name,
    null as missing_test
where false
