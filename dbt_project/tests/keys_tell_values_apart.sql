-- Keys of different parts differ, keys of equal parts are equal.
with cases as (

    select
        {{ hash_key(['a', 'b']) }} as one_key,
        {{ hash_key(['c', 'd']) }} as other_key,
        is_same
    from (
        values
        ('a', 'bc', 'ab', 'c', false),
        ('1:a', '', '1', ':a', false),
        ('', 'x', null, 'x', false),
        (null, '-', '-', null, false),
        ('ä', null, 'ä', null, true)
    ) as pairs (a, b, c, d, is_same)

)

select *
from cases
where (one_key = other_key) != is_same
