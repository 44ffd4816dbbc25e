-- A table in silver or gold that no model makes any more would be published with rows no gate has looked at.
select
    table_schema,
    table_name,
    'drop it: dbt run-operation drop_tables_without_model' as what_to_do
from ({{ tables_without_model() }}) as left_over
