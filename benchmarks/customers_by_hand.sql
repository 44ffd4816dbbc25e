-- The dimension of benchmarks/customers.py as one would write it once, whole: the same columns, the same keys.
-- It relies on what is known of this very log: no two changes of a customer have one time, deletes carry no image, a
-- customer's first change is none.
create table gold.customers_by_hand as
with compared as (
    select
        customer,
        changed_at,
        is_delete,
        city,
        segment,
        credit_limit,
        lag(row(is_delete, city, segment, credit_limit)) over in_time as before,
        last_value(email ignore nulls) over of_customer as email
    from logs.changes
    window
        in_time as (partition by customer order by changed_at),
        of_customer as (
            partition by customer order by changed_at rows between unbounded preceding and unbounded following
        )
),

versions as (
    select
        *,
        lead(changed_at) over in_time as valid_to,
        count(*) filter (where not is_delete) over in_time as version
    from compared
    where before is null or before is distinct from row(is_delete, city, segment, credit_limit)
    window in_time as (partition by customer order by changed_at)
)

select
    cast(md5(concat(
        length(cast(customer as varchar)) || ':' || customer,
        '26:' || strftime(changed_at, '%Y-%m-%dT%H:%M:%S.%f')
    )) as uuid) as customer_key,
    customer,
    cast(version as integer) as version,
    city,
    segment,
    credit_limit,
    email,
    changed_at as valid_from,
    valid_to,
    valid_to is null as is_current
from versions
where not is_delete;
