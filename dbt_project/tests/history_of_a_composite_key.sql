-- scd2_history takes several key columns and any ordered type as time: two things that share half a key do
-- not mix, a null in the key is a value, and the clock may be a number.
{%- set history = scd2_history(
    relation='change_log',
    natural_key=['shop', 'shelf'],
    sequence_by=['place'],
    valid_from='instant',
    tracked=['label'],
    is_delete='gone'
) %}
with change_log as (

    select *
    from (
        values
        (1, 'north', 1, 10, 'a', false),
        (2, 'south', 1, 10, 'b', false),
        (3, 'north', 2, 10, 'c', false),
        (4, 'north', 1, 20, 'd', false),
        (5, null, 1, 10, 'e', false),
        (6, null, 1, 30, null, true)
    ) as changes (place, shop, shelf, instant, label, gone)

),

expected as (

    select *
    from (
        values
        ('north', 1, 1, 'a', 10, 20, false, false),
        ('north', 1, 2, 'd', 20, null, true, false),
        ('south', 1, 1, 'b', 10, null, true, false),
        ('north', 2, 1, 'c', 10, null, true, false),
        (null, 1, 1, 'e', 10, 30, false, false),
        (null, 1, 2, 'e', 30, null, false, true)
    ) as versions (shop, shelf, version, label, valid_from, valid_to, is_current, is_deleted)

),

found as (

    {{ history | indent(4) }}

),

surplus as (

    select * from found
    except all
    select * from expected

),

missing as (

    select * from expected
    except all
    select * from found

)

select
    'surplus' as difference,
    *
from surplus

union all

select
    'missing' as difference,
    *
from missing
