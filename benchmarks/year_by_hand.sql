-- The warehouse as one plain script: landing area in, gold tables out, in a DuckDB file and with nothing around it.
--
-- Belongs here: what one good engineer would write by hand for the same rows and figures. No lake, no dbt, no dead
-- letters, no books, no tests, no memory of earlier loads: a line that breaks a rule is dropped by a WHERE, and every
-- table is made anew. Run it on an empty database after SET VARIABLE landing = '<folder>'.
--
-- It applies the contracts' rules except what no landing area it is used on needs: it refuses no batch for its share
-- of rejected lines, reads no Parquet, expects UTF-8, and takes a timestamp that DuckDB's own cast takes.

SET TimeZone = 'UTC';

CREATE SCHEMA gold;

CREATE MACRO date_key(instant) AS CAST(year(instant) * 10000 + month(instant) * 100 + day(instant) AS INTEGER);

CREATE MACRO unknown_key() AS CAST('00000000-0000-0000-0000-000000000000' AS UUID);

CREATE MACRO version_key(natural_key, valid_from) AS CAST(
    md5(length(natural_key) || ':' || natural_key || '26:' || strftime(valid_from, '%Y-%m-%dT%H:%M:%S.%f')) AS UUID
);

CREATE MACRO is_whole(value) AS regexp_full_match(value, '[+-]?[0-9]+');

-- At most four places: more would be rounded.
CREATE MACRO is_money(value) AS regexp_full_match(value, '[+-]?[0-9]*([.][0-9]{0,4}0*)?');

-- Landing -----------------------------------------------------------------------------------------------------------

CREATE TEMP TABLE files AS
SELECT
    file AS filename,
    regexp_extract(file, '.*/(orders|products|customers|events)/(?:region|date)=', 1) AS source,
    regexp_extract(file, '/region=([^/]+)/', 1) AS region_code,
    regexp_extract(file, '/date=([^/]+)/', 1) AS landing_date
FROM glob(getvariable('landing') || '/**')
WHERE regexp_matches(file, '\.(csv|jsonl)(\.gz)?$');

SET VARIABLE paths = (SELECT list(filename ORDER BY filename) FROM files);

-- Lines, not columns: DuckDB's CSV reader loses the good lines behind a quote that is never closed. The separator is
-- a character no line holds. A line's rowid is its place in the order of files and lines.
CREATE TEMP TABLE lines AS
SELECT filename, line
FROM read_csv(
    getvariable('paths'),
    auto_detect = false, header = false, delim = '\x1f', quote = '', escape = '', comment = '', strict_mode = false,
    columns = {'line': 'VARCHAR'}, filename = true, hive_partitioning = false
);

-- A line that stands twice in a file is one line.
CREATE TEMP TABLE order_lines AS
SELECT filename, line, min(lines.rowid) AS place
FROM lines INNER JOIN files USING (filename)
WHERE source = 'orders'
GROUP BY filename, line;

-- Columns stand where the file's header says. A field: quoted, or without a quote at its start, or empty.
-- Fields, like events below, go through a table: the planner would take the line apart again for every rule of a WHERE.
CREATE TEMP TABLE order_fields AS
WITH headers AS (
    SELECT filename, min(place) AS header_place, string_split(arg_min(line, place), ',') AS names
    FROM order_lines
    GROUP BY filename
)

SELECT
    place,
    filename,
    len(names) AS width,
    CASE
        WHEN NOT contains(line, '"') THEN string_split(line, ',')
        WHEN regexp_full_match(line, '("([^"]|"")*"|[^,"][^,]*|)(,("([^"]|"")*"|[^,"][^,]*|))*')
            THEN list_transform(
                regexp_extract_all(',' || line, ',("(?:[^"]|"")*"|[^,"][^,]*|)', 1),
                lambda f: CASE WHEN starts_with(f, '"') THEN replace(f[2:-2], '""', '"') ELSE f END
            )
    END AS fields,
    fields[list_position(names, 'Invoice')] AS invoice,
    fields[list_position(names, 'StockCode')] AS stock_code,
    fields[list_position(names, 'Quantity')] AS quantity,
    fields[list_position(names, 'InvoiceDate')] AS invoiced_at,
    fields[list_position(names, 'Price')] AS unit_price,
    nullif(fields[list_position(names, 'Customer ID')], '') AS customer_id,
    fields[list_position(names, 'Country')] AS country
FROM order_lines INNER JOIN headers USING (filename)
WHERE place > header_place;

CREATE TEMP TABLE orders AS
SELECT
    place,
    region_code,
    invoice,
    stock_code,
    customer_id,
    TRY_CAST(invoiced_at AS TIMESTAMP) AS invoiced_at,
    TRY_CAST(quantity AS INTEGER) AS quantity,
    TRY_CAST(unit_price AS DECIMAL(12, 4)) AS unit_price
FROM order_fields INNER JOIN files USING (filename)
WHERE
    len(fields) = width
    AND regexp_matches(invoice, '^[AC]?\d{6}$')
    AND stock_code <> ''
    AND country <> ''
    AND is_whole(quantity) AND TRY_CAST(quantity AS INTEGER) <> 0
    AND TRY_CAST(invoiced_at AS TIMESTAMP) IS NOT NULL
    AND is_money(unit_price) AND TRY_CAST(unit_price AS DECIMAL(12, 4)) >= 0
    AND (customer_id IS NULL OR regexp_matches(customer_id, '^\d{5}$'));

CREATE TEMP TABLE product_events AS
SELECT
    lines.rowid AS place,
    CASE WHEN json_valid(line) THEN from_json(line, '{
        "op": "VARCHAR", "source": {"lsn": "BIGINT", "ts_ms": "BIGINT"},
        "before": {"stock_code": "VARCHAR", "description": "VARCHAR", "list_price": "VARCHAR"},
        "after": {"stock_code": "VARCHAR", "description": "VARCHAR", "list_price": "VARCHAR"}
    }') END AS event
FROM lines INNER JOIN files USING (filename)
WHERE source = 'products';

-- One row per distinct change; `place` is where it was delivered first.
CREATE TEMP TABLE product_changes AS
WITH images AS (
    SELECT
        place,
        event.op AS op,
        event.source.lsn AS lsn,
        epoch_ms(event.source.ts_ms) AS changed_at,
        CASE WHEN event.op = 'd' THEN event.before ELSE event.after END AS image
    FROM product_events
    WHERE event.op IN ('c', 'u', 'r') OR (event.op = 'd' AND event.after IS NULL)
)

SELECT
    image.stock_code AS stock_code,
    image.description AS description,
    TRY_CAST(image.list_price AS DECIMAL(12, 4)) AS list_price,
    op,
    op = 'd' AS is_deleted,
    changed_at,
    lsn,
    min(place) AS place
FROM images
WHERE
    image.stock_code <> ''
    AND lsn IS NOT NULL
    AND changed_at IS NOT NULL
    AND (
        op = 'd'
        OR image.list_price IS NULL
        OR (is_money(image.list_price) AND TRY_CAST(image.list_price AS DECIMAL(12, 4)) >= 0)
    )
GROUP BY ALL;

CREATE TEMP TABLE customer_events AS
SELECT
    lines.rowid AS place,
    CASE WHEN json_valid(line) THEN from_json(line, '{
        "op": "VARCHAR", "source": {"lsn": "BIGINT", "ts_ms": "BIGINT"},
        "before": {"customer_id": "VARCHAR", "country": "VARCHAR", "segment": "VARCHAR", "email": "VARCHAR"},
        "after": {"customer_id": "VARCHAR", "country": "VARCHAR", "segment": "VARCHAR", "email": "VARCHAR"}
    }') END AS event
FROM lines INNER JOIN files USING (filename)
WHERE source = 'customers';

CREATE TEMP TABLE customer_changes AS
WITH images AS (
    SELECT
        place,
        event.op AS op,
        event.source.lsn AS lsn,
        epoch_ms(event.source.ts_ms) AS changed_at,
        CASE WHEN event.op = 'd' THEN event.before ELSE event.after END AS image
    FROM customer_events
    WHERE event.op IN ('c', 'u', 'r') OR (event.op = 'd' AND event.after IS NULL)
)

SELECT
    image.customer_id AS customer_id,
    image.country AS country,
    image.segment AS segment,
    -- personal, and masked without a key
    CASE WHEN image.email IS NOT NULL THEN '***' END AS email,
    op,
    op = 'd' AS is_deleted,
    changed_at,
    lsn,
    min(place) AS place
FROM images
WHERE
    regexp_matches(image.customer_id, '^\d{5}$')
    AND lsn IS NOT NULL
    AND changed_at IS NOT NULL
    AND (op = 'd' OR image.segment IS NULL OR image.segment IN ('retail', 'wholesale'))
GROUP BY ALL;

CREATE TEMP TABLE shop_events AS
SELECT
    lines.rowid AS place,
    landing_date,
    CASE WHEN json_valid(line) THEN from_json(line, '{
        "event_id": "VARCHAR", "event_type": "VARCHAR", "event_ts": "VARCHAR", "visitor_id": "VARCHAR",
        "customer_id": "VARCHAR", "stock_code": "VARCHAR", "quantity": "VARCHAR", "invoice": "VARCHAR",
        "channel": "VARCHAR"
    }') END AS event
FROM lines INNER JOIN files USING (filename)
WHERE source = 'events';

-- An id is good once a day, the first time; of several days the earliest event counts.
CREATE TEMP TABLE events AS
WITH typed AS (
    SELECT
        place,
        landing_date,
        event.event_id AS event_id,
        event.visitor_id AS visitor_id,
        event.invoice AS invoice,
        event.stock_code AS stock_code,
        event.customer_id AS customer_id,
        TRY_CAST(event.event_ts AS TIMESTAMP) AS event_ts,
        event.event_type AS event_type,
        event.channel AS channel,
        TRY_CAST(event.quantity AS INTEGER) AS quantity
    FROM shop_events
    WHERE
        event.event_id <> ''
        AND event.event_type IN ('page_view', 'view', 'add_to_cart', 'remove_from_cart', 'checkout', 'purchase')
        AND TRY_CAST(event.event_ts AS TIMESTAMP) IS NOT NULL
        AND event.visitor_id <> ''
        AND (event.customer_id IS NULL OR regexp_matches(event.customer_id, '^\d{5}$'))
        AND (event.quantity IS NULL OR (is_whole(event.quantity) AND TRY_CAST(event.quantity AS INTEGER) >= 1))
        AND (event.channel IS NULL OR event.channel IN ('web', 'app'))
),

first_of_day AS (
    SELECT *
    FROM typed
    QUALIFY row_number() OVER (PARTITION BY landing_date, event_id ORDER BY place) = 1
)

SELECT * EXCLUDE (landing_date)
FROM first_of_day
QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY event_ts, place) = 1;

-- Dimensions --------------------------------------------------------------------------------------------------------

CREATE TABLE gold.dim_region AS
SELECT *
FROM (VALUES
    ('uk', 'United Kingdom', true), ('eu', 'European Union', false), ('row', 'Rest of the world', false)
) AS regions (region_key, region_name, is_home_market);

CREATE TABLE gold.dim_date AS
WITH bounds AS (
    SELECT date_trunc('year', min(first)) AS first, date_trunc('year', max(last)) AS last
    FROM (
        SELECT min(invoiced_at) AS first, max(invoiced_at) AS last FROM orders
        UNION ALL
        SELECT min(event_ts), max(event_ts) FROM events
    )
),

days AS (
    SELECT CAST(unnest(generate_series(first, last + INTERVAL 1 YEAR - INTERVAL 1 DAY, INTERVAL 1 DAY)) AS DATE) AS day
    FROM bounds
)

SELECT
    date_key(day) AS date_key,
    day AS calendar_date,
    CAST(year(day) AS INTEGER) AS calendar_year,
    CAST(quarter(day) AS INTEGER) AS quarter_of_year,
    CAST(month(day) AS INTEGER) AS month_of_year,
    CAST(day(day) AS INTEGER) AS day_of_month,
    monthname(day) AS month_name,
    CAST(date_trunc('month', day) AS DATE) AS first_day_of_month,
    strftime(day, '%Y-%m') AS year_month,
    CAST(isoyear(day) AS INTEGER) AS iso_year,
    CAST(week(day) AS INTEGER) AS iso_week,
    CAST(isodow(day) AS INTEGER) AS iso_day_of_week,
    dayname(day) AS day_name,
    isodow(day) >= 6 AS is_weekend
FROM days;

-- History, type 2: changes in the order of the log; a clock that runs back does not move a version back; of several
-- changes at one instant the last counts; neighbours that are equal are one version; a delete is a version that
-- carries the last attributes.
CREATE TEMP TABLE product_history AS
WITH logged AS (
    SELECT
        stock_code,
        is_deleted,
        coalesce(
            CASE WHEN is_deleted THEN
                last_value(CASE WHEN NOT is_deleted THEN {'description': description, 'list_price': list_price} END
                    IGNORE NULLS) OVER so_far
            END,
            {'description': description, 'list_price': list_price}
        ) AS state,
        max(changed_at) OVER so_far AS valid_from,
        coalesce(lead(changed_at) OVER so_far > max(changed_at) OVER so_far, true) AS is_last_of_instant
    FROM product_changes
    WINDOW so_far AS (PARTITION BY stock_code ORDER BY lsn, place ROWS UNBOUNDED PRECEDING)
),

versions AS (
    SELECT stock_code, state, is_deleted, valid_from
    FROM logged
    WHERE is_last_of_instant
    WINDOW in_time AS (PARTITION BY stock_code ORDER BY valid_from)
    QUALIFY
        lag(is_deleted) OVER in_time IS DISTINCT FROM is_deleted
        OR lag(state) OVER in_time IS DISTINCT FROM state
)

SELECT
    stock_code,
    CAST(row_number() OVER of_product AS INTEGER) AS version,
    state.description AS description,
    state.list_price AS list_price,
    valid_from,
    lead(valid_from) OVER of_product AS valid_to,
    is_deleted
FROM versions
WINDOW of_product AS (PARTITION BY stock_code ORDER BY valid_from);

CREATE TEMP TABLE customer_history AS
WITH logged AS (
    SELECT
        customer_id,
        is_deleted,
        coalesce(
            CASE WHEN is_deleted THEN
                last_value(CASE WHEN NOT is_deleted THEN {'country': country, 'segment': segment, 'email': email} END
                    IGNORE NULLS) OVER so_far
            END,
            {'country': country, 'segment': segment, 'email': email}
        ) AS state,
        max(changed_at) OVER so_far AS valid_from,
        coalesce(lead(changed_at) OVER so_far > max(changed_at) OVER so_far, true) AS is_last_of_instant
    FROM customer_changes
    WINDOW so_far AS (PARTITION BY customer_id ORDER BY lsn, place ROWS UNBOUNDED PRECEDING)
),

versions AS (
    SELECT customer_id, state, is_deleted, valid_from
    FROM logged
    WHERE is_last_of_instant
    WINDOW in_time AS (PARTITION BY customer_id ORDER BY valid_from)
    QUALIFY
        lag(is_deleted) OVER in_time IS DISTINCT FROM is_deleted
        OR lag(state) OVER in_time IS DISTINCT FROM state
)

SELECT
    customer_id,
    CAST(row_number() OVER of_customer AS INTEGER) AS version,
    state.country AS country,
    state.segment AS segment,
    state.email AS email,
    valid_from,
    lead(valid_from) OVER of_customer AS valid_to,
    is_deleted
FROM versions
WINDOW of_customer AS (PARTITION BY customer_id ORDER BY valid_from);

-- Besides the versions: a member for every key that was seen before its first version, and one for no key at all.
CREATE TABLE gold.dim_product AS
WITH inferred AS (
    SELECT seen.stock_code, known.valid_from AS valid_to
    FROM (
        SELECT stock_code, min(seen_at) AS seen_at
        FROM (
            SELECT stock_code, invoiced_at AS seen_at FROM orders
            UNION ALL
            SELECT stock_code, event_ts FROM events WHERE stock_code IS NOT NULL
        )
        GROUP BY stock_code
    ) AS seen
    LEFT JOIN product_history AS known ON seen.stock_code = known.stock_code AND known.version = 1
    WHERE known.valid_from IS NULL OR seen.seen_at < known.valid_from
)

SELECT
    version_key(stock_code, valid_from) AS product_key,
    stock_code,
    version,
    description,
    list_price,
    valid_from,
    valid_to,
    valid_to IS NULL AND NOT is_deleted AS is_current,
    is_deleted,
    false AS is_inferred,
    false AS is_unknown
FROM product_history
UNION ALL
SELECT
    version_key(stock_code, TIMESTAMP '1900-01-01'), stock_code, 0, NULL, NULL, TIMESTAMP '1900-01-01',
    valid_to, valid_to IS NULL, false, true, false
FROM inferred
UNION ALL
SELECT unknown_key(), NULL, 0, NULL, NULL, TIMESTAMP '1900-01-01', NULL, true, false, false, true;

CREATE TABLE gold.dim_customer AS
WITH inferred AS (
    SELECT seen.customer_id, known.valid_from AS valid_to
    FROM (
        SELECT customer_id, min(seen_at) AS seen_at
        FROM (
            SELECT customer_id, invoiced_at AS seen_at FROM orders WHERE customer_id IS NOT NULL
            UNION ALL
            SELECT customer_id, event_ts FROM events WHERE customer_id IS NOT NULL
        )
        GROUP BY customer_id
    ) AS seen
    LEFT JOIN customer_history AS known ON seen.customer_id = known.customer_id AND known.version = 1
    WHERE known.valid_from IS NULL OR seen.seen_at < known.valid_from
)

SELECT
    version_key(customer_id, valid_from) AS customer_key,
    customer_id,
    version,
    country,
    segment,
    email,
    valid_from,
    valid_to,
    valid_to IS NULL AND NOT is_deleted AS is_current,
    is_deleted,
    false AS is_inferred,
    false AS is_unknown
FROM customer_history
UNION ALL
SELECT
    version_key(customer_id, TIMESTAMP '1900-01-01'), customer_id, 0, NULL, NULL, NULL, TIMESTAMP '1900-01-01',
    valid_to, valid_to IS NULL, false, true, false
FROM inferred
UNION ALL
SELECT unknown_key(), NULL, 0, NULL, NULL, NULL, TIMESTAMP '1900-01-01', NULL, true, false, false, true;

-- Facts -------------------------------------------------------------------------------------------------------------

CREATE TABLE gold.fct_order_lines AS
SELECT
    place AS order_line_key,
    products.product_key,
    coalesce(customers.customer_key, unknown_key()) AS customer_key,
    region_code AS region_key,
    date_key(invoiced_at) AS date_key,
    invoice,
    orders.stock_code,
    orders.customer_id,
    invoiced_at,
    CASE
        WHEN starts_with(invoice, 'C') THEN 'return'
        WHEN starts_with(invoice, 'A') THEN 'adjustment'
        WHEN quantity > 0 THEN 'sale'
        ELSE 'other'
    END AS line_type,
    starts_with(invoice, 'C') AS is_return,
    starts_with(invoice, 'A') AS is_adjustment,
    quantity,
    unit_price,
    CAST(quantity * unit_price AS DECIMAL(18, 4)) AS line_amount,
    list_price,
    CAST(quantity * list_price AS DECIMAL(18, 4)) AS list_amount
FROM orders
LEFT JOIN gold.dim_product AS products
    ON
        orders.stock_code = products.stock_code
        AND invoiced_at >= products.valid_from
        AND invoiced_at < coalesce(products.valid_to, TIMESTAMP 'infinity')
LEFT JOIN gold.dim_customer AS customers
    ON
        orders.customer_id = customers.customer_id
        AND invoiced_at >= customers.valid_from
        AND invoiced_at < coalesce(customers.valid_to, TIMESTAMP 'infinity');

CREATE TABLE gold.fct_events AS
SELECT
    CAST(md5(length(event_id) || ':' || event_id) AS UUID) AS event_key,
    coalesce(products.product_key, unknown_key()) AS product_key,
    coalesce(customers.customer_key, unknown_key()) AS customer_key,
    date_key(event_ts) AS date_key,
    event_id,
    visitor_id,
    invoice,
    events.stock_code,
    events.customer_id,
    event_ts,
    event_type,
    channel,
    quantity
FROM events
LEFT JOIN gold.dim_product AS products
    ON
        events.stock_code = products.stock_code
        AND event_ts >= products.valid_from
        AND event_ts < coalesce(products.valid_to, TIMESTAMP 'infinity')
LEFT JOIN gold.dim_customer AS customers
    ON
        events.customer_id = customers.customer_id
        AND event_ts >= customers.valid_from
        AND event_ts < coalesce(customers.valid_to, TIMESTAMP 'infinity');

-- Half-open: exactly 30 minutes after the event before begins the next session.
CREATE TABLE gold.fct_sessions AS
WITH placed AS (
    SELECT
        *,
        row_number() OVER of_visitor AS place,
        coalesce(event_ts >= lag(event_ts) OVER of_visitor + INTERVAL 30 MINUTE, true) AS is_first
    FROM gold.fct_events
    WINDOW of_visitor AS (PARTITION BY visitor_id ORDER BY event_ts, event_id)
),

numbered AS (
    SELECT *, count_if(is_first) OVER (PARTITION BY visitor_id ORDER BY place) AS session
    FROM placed
),

counted AS (
    SELECT
        visitor_id,
        min(event_ts) AS started_at,
        max(event_ts) AS last_event_at,
        arg_max(customer_id, place) AS customer_id,
        arg_max(customer_key, place) FILTER (customer_id IS NOT NULL) AS customer_key,
        any_value(channel) FILTER (is_first) AS channel,
        any_value(event_type) FILTER (is_first) AS landing_event_type,
        any_value(stock_code) FILTER (is_first) AS landing_stock_code,
        count(*) AS events,
        count_if(event_type = 'page_view') AS page_views,
        count_if(event_type = 'view') AS product_views,
        count_if(event_type = 'add_to_cart') AS cart_additions,
        count_if(event_type = 'remove_from_cart') AS cart_removals,
        count_if(event_type = 'checkout') AS checkouts,
        count_if(event_type = 'purchase') AS purchases,
        count(DISTINCT invoice) FILTER (event_type = 'purchase') AS invoices,
        arg_min(invoice, place) FILTER (event_type = 'purchase') AS invoice,
        min(event_ts) FILTER (event_type = 'view') AS viewed_at,
        list(event_ts) FILTER (event_type = 'add_to_cart') AS carts,
        list(event_ts) FILTER (event_type = 'purchase') AS bought
    FROM numbered
    GROUP BY visitor_id, session
),

in_order AS (
    SELECT *, list_min(list_filter(carts, lambda t: t >= viewed_at)) AS carted_at
    FROM counted
)

SELECT
    CAST(md5(length(visitor_id) || ':' || visitor_id || '26:' || strftime(started_at, '%Y-%m-%dT%H:%M:%S.%f')) AS UUID)
        AS session_key,
    coalesce(customer_key, unknown_key()) AS customer_key,
    date_key(started_at) AS date_key,
    visitor_id,
    customer_id,
    started_at,
    last_event_at,
    last_event_at + INTERVAL 30 MINUTE AS expires_at,
    date_sub('second', started_at, last_event_at) AS duration_seconds,
    channel,
    landing_event_type,
    landing_stock_code,
    events,
    page_views,
    product_views,
    cart_additions,
    cart_removals,
    checkouts,
    purchases,
    purchases > 0 AS has_purchase,
    invoices,
    invoice,
    viewed_at,
    carted_at,
    list_min(list_filter(bought, lambda t: t >= carted_at)) AS purchased_at
FROM in_order;

CREATE TABLE gold.fct_daily_sales AS
SELECT
    date_key,
    region_key,
    stock_code,
    count(*) AS order_lines,
    count(DISTINCT invoice) AS invoices,
    CAST(coalesce(sum(quantity) FILTER (line_type = 'sale'), 0) AS BIGINT) AS quantity_sold,
    CAST(coalesce(-sum(quantity) FILTER (line_type = 'return'), 0) AS BIGINT) AS quantity_returned,
    CAST(sum(quantity) AS BIGINT) AS net_quantity,
    CAST(coalesce(sum(line_amount) FILTER (line_type = 'sale'), 0) AS DECIMAL(18, 4)) AS sales_amount,
    CAST(coalesce(sum(line_amount) FILTER (line_type = 'return'), 0) AS DECIMAL(18, 4)) AS returns_amount,
    CAST(coalesce(sum(line_amount) FILTER (line_type NOT IN ('sale', 'return')), 0) AS DECIMAL(18, 4)) AS other_amount,
    CAST(sum(line_amount) AS DECIMAL(18, 4)) AS net_amount,
    CAST(sum(list_amount) AS DECIMAL(18, 4)) AS list_amount
FROM gold.fct_order_lines
GROUP BY date_key, region_key, stock_code;

-- Marts -------------------------------------------------------------------------------------------------------------

CREATE TABLE gold.mart_orders_wide AS
SELECT
    lines.order_line_key,
    lines.invoice,
    lines.stock_code,
    lines.customer_id,
    region_key,
    date_key,
    lines.invoiced_at,
    dates.calendar_date,
    dates.calendar_year,
    dates.year_month,
    dates.day_name,
    dates.is_weekend,
    regions.region_name,
    products.description AS product_description,
    products.list_price AS product_list_price,
    products.version AS product_version,
    products.is_inferred AS product_is_inferred,
    customers.country AS customer_country,
    customers.segment AS customer_segment,
    customers.version AS customer_version,
    customers.is_inferred AS customer_is_inferred,
    customers.is_unknown AS customer_is_unknown,
    lines.line_type,
    lines.is_return,
    lines.is_adjustment,
    lines.quantity,
    lines.unit_price,
    lines.line_amount,
    lines.list_amount
FROM gold.fct_order_lines AS lines
INNER JOIN gold.dim_product AS products USING (product_key)
INNER JOIN gold.dim_customer AS customers USING (customer_key)
INNER JOIN gold.dim_region AS regions USING (region_key)
INNER JOIN gold.dim_date AS dates USING (date_key);

CREATE TABLE gold.mart_daily_sales AS
WITH daily AS (
    SELECT
        date_key,
        region_key,
        count(*) AS order_lines,
        count(DISTINCT invoice) FILTER (line_type = 'sale') AS sales_invoices,
        count(DISTINCT customer_id) AS known_customers,
        sum(quantity) FILTER (line_type = 'sale') AS quantity_sold,
        sum(line_amount) FILTER (line_type = 'sale') AS sales_amount,
        sum(line_amount) FILTER (line_type = 'return') AS returns_amount,
        sum(line_amount) AS net_amount
    FROM gold.fct_order_lines
    GROUP BY date_key, region_key
),

filled AS (
    SELECT
        date_key,
        region_key,
        calendar_date,
        first_day_of_month,
        coalesce(order_lines, 0) AS order_lines,
        coalesce(sales_invoices, 0) AS sales_invoices,
        coalesce(known_customers, 0) AS known_customers,
        CAST(coalesce(quantity_sold, 0) AS BIGINT) AS quantity_sold,
        CAST(coalesce(sales_amount, 0) AS DECIMAL(18, 4)) AS sales_amount,
        CAST(coalesce(returns_amount, 0) AS DECIMAL(18, 4)) AS returns_amount,
        CAST(coalesce(net_amount, 0) AS DECIMAL(18, 4)) AS net_amount
    FROM gold.dim_date
    CROSS JOIN gold.dim_region
    LEFT JOIN daily USING (date_key, region_key)
    WHERE date_key BETWEEN (SELECT min(date_key) FROM daily) AND (SELECT max(date_key) FROM daily)
)

SELECT
    * EXCLUDE (first_day_of_month),
    CAST(avg(net_amount) OVER (PARTITION BY region_key ORDER BY calendar_date ROWS 6 PRECEDING) AS DECIMAL(18, 4))
        AS net_amount_7_day_average,
    lag(net_amount, 7) OVER (PARTITION BY region_key ORDER BY calendar_date) AS net_amount_week_before,
    CAST(sum(net_amount) OVER (
        PARTITION BY region_key, first_day_of_month ORDER BY calendar_date ROWS UNBOUNDED PRECEDING
    ) AS DECIMAL(18, 4)) AS net_amount_month_to_date
FROM filled;

CREATE TABLE gold.mart_customer_value AS
WITH per_customer AS (
    SELECT
        customer_id,
        min(CAST(invoiced_at AS DATE)) FILTER (line_type = 'sale') AS first_purchase_date,
        max(CAST(invoiced_at AS DATE)) FILTER (line_type = 'sale') AS last_purchase_date,
        count(DISTINCT invoice) FILTER (line_type = 'sale') AS frequency,
        CAST(sum(line_amount) FILTER (line_type IN ('sale', 'return')) AS DECIMAL(18, 4)) AS monetary,
        CAST(sum(line_amount) FILTER (line_type = 'sale') AS DECIMAL(18, 4)) AS sales_amount
    FROM gold.fct_order_lines
    WHERE customer_id IS NOT NULL
    GROUP BY customer_id
    HAVING bool_or(line_type = 'sale')
),

measured AS (
    SELECT
        *,
        CAST(as_of_date - last_purchase_date AS INTEGER) AS recency_days
    FROM per_customer
    CROSS JOIN (SELECT max(CAST(invoiced_at AS DATE)) AS as_of_date FROM gold.fct_order_lines)
),

scored AS (
    SELECT
        *,
        CAST(1 + 5 * (rank() OVER (ORDER BY recency_days DESC) - 1) // count(*) OVER () AS INTEGER) AS recency_score,
        CAST(1 + 5 * (rank() OVER (ORDER BY frequency) - 1) // count(*) OVER () AS INTEGER) AS frequency_score,
        CAST(1 + 5 * (rank() OVER (ORDER BY monetary) - 1) // count(*) OVER () AS INTEGER) AS monetary_score
    FROM measured
)

SELECT
    scored.customer_id,
    customers.country,
    customers.segment,
    as_of_date,
    first_purchase_date,
    last_purchase_date,
    recency_days,
    frequency,
    monetary,
    CAST(sales_amount / frequency AS DECIMAL(18, 4)) AS average_sale_amount,
    recency_score,
    frequency_score,
    monetary_score,
    recency_score * 100 + frequency_score * 10 + monetary_score AS rfm_score
FROM scored
LEFT JOIN gold.dim_customer AS customers
    ON scored.customer_id = customers.customer_id AND customers.valid_to IS NULL;

CREATE TABLE gold.mart_monthly_cohorts AS
WITH purchases AS (
    SELECT
        customer_id,
        date_trunc('month', invoiced_at)::DATE AS purchase_month,
        min(purchase_month) OVER (PARTITION BY customer_id) AS cohort_month,
        sum(line_amount) AS revenue
    FROM gold.fct_order_lines
    WHERE line_type = 'sale' AND customer_id IS NOT NULL
    GROUP BY customer_id, purchase_month
),

active AS (
    SELECT
        cohort_month,
        date_diff('month', cohort_month, purchase_month) AS months_since,
        count(*) AS customers,
        sum(revenue) AS revenue
    FROM purchases
    GROUP BY cohort_month, months_since
),

cells AS (
    SELECT
        cohort_month,
        customers AS cohort_customers,
        unnest(generate_series(
            0, date_diff('month', cohort_month, (SELECT max(purchase_month) FROM purchases))
        )) AS months_since
    FROM active
    WHERE months_since = 0
)

SELECT
    cohort_month,
    CAST(months_since AS INTEGER) AS months_since,
    cohort_customers,
    coalesce(active.customers, 0) AS customers,
    CAST(coalesce(active.revenue, 0) AS DECIMAL(18, 4)) AS revenue,
    CAST(coalesce(active.customers, 0) / cohort_customers AS DECIMAL(9, 6)) AS retention
FROM cells
LEFT JOIN active USING (cohort_month, months_since);

CREATE TABLE gold.agg_events_5min AS
SELECT
    time_bucket(INTERVAL 5 MINUTE, event_ts) AS window_start,
    window_start + INTERVAL 5 MINUTE AS window_end,
    date_key(window_start) AS date_key,
    event_type,
    coalesce(fct_events.channel, 'unknown') AS channel,
    count(*) AS events,
    count(DISTINCT visitor_id) AS visitors,
    CAST(coalesce(sum(quantity), 0) AS BIGINT) AS quantity
FROM gold.fct_events
GROUP BY ALL;

CREATE TABLE gold.agg_events_15min_sliding AS
SELECT
    time_bucket(INTERVAL 5 MINUTE, event_ts) - hop * INTERVAL 5 MINUTE AS window_start,
    window_start + INTERVAL 15 MINUTE AS window_end,
    date_key(window_start) AS date_key,
    event_type,
    coalesce(fct_events.channel, 'unknown') AS channel,
    count(*) AS events,
    count(DISTINCT visitor_id) AS visitors,
    CAST(coalesce(sum(quantity), 0) AS BIGINT) AS quantity
FROM gold.fct_events
CROSS JOIN range(3) AS hops (hop)
GROUP BY ALL;

CREATE TABLE gold.mart_funnel AS
SELECT
    date_key,
    CAST(started_at AS DATE) AS calendar_date,
    coalesce(fct_sessions.channel, 'unknown') AS channel,
    count(*) AS sessions,
    count(viewed_at) AS viewed_sessions,
    count(carted_at) AS carted_sessions,
    count(purchased_at) AS purchased_sessions,
    CAST(viewed_sessions / count(*) AS DECIMAL(9, 6)) AS view_rate,
    CAST(carted_sessions / nullif(viewed_sessions, 0) AS DECIMAL(9, 6)) AS cart_rate,
    CAST(purchased_sessions / nullif(carted_sessions, 0) AS DECIMAL(9, 6)) AS purchase_rate,
    CAST(purchased_sessions / count(*) AS DECIMAL(9, 6)) AS conversion_rate
FROM gold.fct_sessions
GROUP BY ALL;
