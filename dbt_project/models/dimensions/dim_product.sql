{{ config(
    materialized='scd',
    natural_key='stock_code',
    surrogate_key='product_key',
    sequence_by=[
        'change_seq_lsn', 'change_seq_order', 'change_seq_partition', 'change_seq_file', 'change_seq_line'
    ],
    valid_from='changed_at',
    delete_when='is_delete',
    truncate_when='is_truncate',
    deletes='keep',
    sighting_when='is_sighting',
    unknown_member=true,
    beginning="timestamp '" ~ var('beginning_of_time') ~ "'",
    columns={'description': 2, 'list_price': 2},
    changes_in=[
        {'table': 'bronze.products', 'valid_from': '_source_ts'},
        {'table': 'bronze.orders', 'valid_from': 'invoiced_at', 'sighting': true},
        {'table': 'bronze.events', 'valid_from': 'event_ts', 'sighting': true},
    ]
) }}
-- Grain: one version of one product, valid in [valid_from, valid_to); plus inferred and unknown members.
-- This SELECT is the log: what changed, and who was referred to when. History is made of it.
select
    stock_code,
    change_seq_lsn,
    change_seq_order,
    change_seq_partition,
    change_seq_file,
    change_seq_line,
    changed_at,
    is_delete,
    is_truncate,
    false as is_sighting,
    description,
    list_price
from {{ ref('stg_product_changes') }}

union all

select
    stock_code,
    null as change_seq_lsn,
    null as change_seq_order,
    null as change_seq_partition,
    null as change_seq_file,
    null as change_seq_line,
    invoiced_at as changed_at,
    null as is_delete,
    null as is_truncate,
    true as is_sighting,
    null as description,
    null as list_price
from {{ ref('stg_orders') }}

union all

select
    stock_code,
    null as change_seq_lsn,
    null as change_seq_order,
    null as change_seq_partition,
    null as change_seq_file,
    null as change_seq_line,
    event_ts as changed_at,
    null as is_delete,
    null as is_truncate,
    true as is_sighting,
    null as description,
    null as list_price
from {{ ref('stg_events') }}
