-- Grain: one version of one customer, valid in [valid_from, valid_to); plus inferred and unknown members.
with history as (

    {{ scd2_history(
        relation=ref('stg_customer_changes'),
        natural_key='customer_id',
        sequence_by=['change_seq_lsn', 'change_seq_partition', 'change_seq_file', 'change_seq_line'],
        valid_from='changed_at',
        tracked=['country', 'segment', 'email'],
        is_delete='is_delete'
    ) | indent(4) }}

),

sightings as (

    select
        customer_id,
        invoiced_at as seen_at
    from {{ ref('stg_orders') }}

    union all

    select
        customer_id,
        event_ts as seen_at
    from {{ ref('stg_events') }}

),

inferred as (

    {{ inferred_members(history='history', sightings='sightings', natural_key='customer_id') | indent(4) }}

),

members as (

    select
        customer_id,
        version,
        country,
        segment,
        email,
        valid_from,
        valid_to,
        is_current,
        is_deleted,
        false as is_inferred,
        false as is_unknown
    from history

    union all

    select
        customer_id,
        0 as version,
        null as country,
        null as segment,
        null as email,
        {{ beginning_of_time() }} as valid_from,
        valid_to,
        valid_to is null as is_current,
        false as is_deleted,
        true as is_inferred,
        false as is_unknown
    from inferred

    union all

    select
        null as customer_id,
        0 as version,
        null as country,
        null as segment,
        null as email,
        {{ beginning_of_time() }} as valid_from,
        null as valid_to,
        true as is_current,
        false as is_deleted,
        false as is_inferred,
        true as is_unknown

)

select
    -- key of the version, and the durable key of the customer
    case
        when is_unknown then {{ unknown_key() }}
        else {{ version_key(['customer_id'], 'valid_from') | indent(8) }}
    end as customer_key,
    customer_id,
    version,

    -- attributes
    country,
    segment,
    email,

    -- validity
    valid_from,
    valid_to,
    is_current,
    is_deleted,
    is_inferred,
    is_unknown
from members
