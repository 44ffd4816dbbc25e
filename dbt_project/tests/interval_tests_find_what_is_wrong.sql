-- The interval tests are tested: each named history must fail exactly the tests beside it.
{%- set histories = 'histories' %}
with histories as (

    select
        label,
        cast(valid_from as timestamp) as valid_from,
        cast(valid_to as timestamp) as valid_to,
        is_current,
        is_deleted
    from (
        values
        ('good', '2024-01-01', '2024-01-02', false, false),
        ('good', '2024-01-02', null, true, false),
        ('good, deleted', '2024-01-01', '2024-01-02', false, false),
        ('good, deleted', '2024-01-02', null, false, true),
        ('overlap', '2024-01-01', '2024-01-03', false, false),
        ('overlap', '2024-01-02', null, true, false),
        ('gap', '2024-01-01', '2024-01-02', false, false),
        ('gap', '2024-01-03', null, true, false),
        ('empty', '2024-01-01', '2024-01-01', false, false),
        ('empty', '2024-01-01', null, true, false),
        ('never open', '2024-01-01', '2024-01-02', false, false),
        ('open twice', '2024-01-01', null, true, false),
        ('open twice', '2024-01-02', null, true, false),
        ('deleted and current', '2024-01-01', null, true, true),
        ('past and current', '2024-01-01', '2024-01-02', true, false),
        ('past and current', '2024-01-02', null, true, false)
    ) as rows_given (label, valid_from, valid_to, is_current, is_deleted)

),

found as (

    select
        'ranges' as guard,
        label
    from ({{ test_mutually_exclusive_ranges(histories, 'label') }}) as failures
    union
    select
        'gaps' as guard,
        label
    from ({{ test_no_gaps(histories, 'label') }}) as failures
    union
    select
        'current' as guard,
        label
    from ({{ test_one_current_row_per_living_key(histories, 'label') }}) as failures

),

expected as (

    select *
    from (
        values
        ('ranges', 'overlap'),
        ('ranges', 'empty'),
        ('ranges', 'open twice'),
        ('gaps', 'gap'),
        ('gaps', 'never open'),
        ('current', 'never open'),
        ('current', 'open twice'),
        ('current', 'deleted and current'),
        ('current', 'past and current')
    ) as failures (guard, label)

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
