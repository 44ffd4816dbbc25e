-- Grain: one version of one product, valid in [valid_from, valid_to); plus inferred and unknown members.
with history as (

    {{ scd2_history(
        relation=ref('stg_product_changes'),
        natural_key='stock_code',
        sequence_by=['change_seq_lsn', 'change_seq_partition', 'change_seq_file', 'change_seq_line'],
        valid_from='changed_at',
        tracked=['description', 'list_price'],
        is_delete='is_delete'
    ) | indent(4) }}

),

sightings as (

    select
        stock_code,
        invoiced_at as seen_at
    from {{ ref('stg_orders') }}

    union all

    select
        stock_code,
        event_ts as seen_at
    from {{ ref('stg_events') }}

),

inferred as (

    {{ inferred_members(history='history', sightings='sightings', natural_key='stock_code') | indent(4) }}

),

members as (

    select
        stock_code,
        version,
        description,
        list_price,
        valid_from,
        valid_to,
        is_current,
        is_deleted,
        false as is_inferred,
        false as is_unknown
    from history

    union all

    select
        stock_code,
        0 as version,
        null as description,
        null as list_price,
        {{ beginning_of_time() }} as valid_from,
        valid_to,
        valid_to is null as is_current,
        false as is_deleted,
        true as is_inferred,
        false as is_unknown
    from inferred

    union all

    select
        null as stock_code,
        0 as version,
        null as description,
        null as list_price,
        {{ beginning_of_time() }} as valid_from,
        null as valid_to,
        true as is_current,
        false as is_deleted,
        false as is_inferred,
        true as is_unknown

)

select
    -- key of the version, and the durable key of the product
    case
        when is_unknown then {{ unknown_key() }}
        else {{ version_key(['stock_code'], 'valid_from') | indent(8) }}
    end as product_key,
    stock_code,
    version,

    -- attributes
    description,
    list_price,

    -- validity
    valid_from,
    valid_to,
    is_current,
    is_deleted,
    is_inferred,
    is_unknown
from members
