-- Figures of the real year, read from what the platform publishes. Run with the lake as the current catalogue.
-- Each statement is named after a key of the expected figures and returns one cell, the figure as JSON.

-- name: rows_read
select to_json(cast(sum(rows_read) as bigint))
from ops.ledger where source = 'orders' and status = 'accepted' and superseded_by is null;

-- name: exact_duplicates
select to_json(cast(sum(rows_duplicate) as bigint))
from ops.ledger where source = 'orders' and status = 'accepted' and superseded_by is null;

-- name: accepted
select to_json(cast(sum(rows_accepted) as bigint))
from ops.ledger where source = 'orders' and status = 'accepted' and superseded_by is null;

-- name: dead_lettered
select to_json(cast(sum(rows_dead_lettered) as bigint))
from ops.ledger where source = 'orders' and status = 'accepted' and superseded_by is null;

-- name: order_lines_revenue
select to_json(cast(sum(line_amount) as varchar)) from gold.fct_order_lines;

-- name: sales_revenue
select to_json(cast(sum(line_amount) as varchar)) from gold.fct_order_lines where quantity > 0 and not is_return;

-- name: sales_lines
select to_json(cast(count(*) as varchar)) from gold.fct_order_lines where quantity > 0 and not is_return;

-- name: returns_revenue
select to_json(cast(sum(line_amount) as varchar)) from gold.fct_order_lines where is_return;

-- name: returns_lines
select to_json(cast(count(*) as varchar)) from gold.fct_order_lines where is_return;

-- name: distinct_invoices
select to_json(count(distinct invoice)) from gold.fct_order_lines;

-- name: distinct_customers
select to_json(count(distinct customer_id)) from gold.fct_order_lines;

-- name: distinct_stock_codes
select to_json(count(distinct stock_code)) from gold.fct_order_lines;

-- name: unknown_customer_lines
select to_json(count(*))
from gold.fct_order_lines as lines
inner join gold.dim_customer as customers on lines.customer_key = customers.customer_key
where customers.is_unknown;

-- name: by_region
select json_group_object(region_key, json_array(order_lines, revenue))
from (
    select region_key, count(*) as order_lines, cast(sum(line_amount) as varchar) as revenue
    from gold.fct_order_lines
    group by region_key
);

-- name: top_day
select json_array(strftime(dates.calendar_date, '%Y-%m-%d'), cast(days.order_lines as varchar), cast(days.revenue as varchar))
from (
    select date_key, cast(sum(order_lines) as bigint) as order_lines, sum(net_amount) as revenue
    from gold.fct_daily_sales
    group by date_key
) as days
inner join gold.dim_date as dates on days.date_key = dates.date_key
order by days.order_lines desc, days.date_key
limit 1;

-- name: products
select json_object(
    'changes', (
        select cast(sum(rows_read) as bigint)
        from ops.ledger where source = 'products' and status = 'accepted' and superseded_by is null
    ),
    'keys', count(distinct stock_code),
    'versions', count(*),
    'max_versions_of_a_key', max(version)
)
from gold.dim_product
where not is_inferred and not is_unknown;

-- name: customers
select json_object(
    'changes', (
        select cast(sum(rows_read) as bigint)
        from ops.ledger where source = 'customers' and status = 'accepted' and superseded_by is null
    ),
    'keys', count(distinct customer_id),
    'versions', count(*),
    'max_versions_of_a_key', max(version)
)
from gold.dim_customer
where not is_inferred and not is_unknown;

-- name: lines_before_product_history
select to_json(count(*))
from gold.fct_order_lines as lines
inner join gold.dim_product as products on lines.product_key = products.product_key
where products.is_inferred;

-- name: known_customer_lines_before_history
select to_json(count(*))
from gold.fct_order_lines as lines
inner join gold.dim_customer as customers on lines.customer_key = customers.customer_key
where customers.is_inferred;

-- name: list_value_as_of_sale
select to_json(cast(sum(list_amount) as varchar)) from gold.fct_order_lines;

-- name: lines_where_current_price_differs_from_as_of
select to_json(count(*))
from gold.fct_order_lines as lines
inner join gold.dim_product as latest
    on lines.stock_code = latest.stock_code and latest.is_current
where lines.list_price != latest.list_price;
