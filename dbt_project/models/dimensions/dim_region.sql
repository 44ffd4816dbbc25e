{{ config(materialized='healed', unique_key='region_key') }}
-- Grain: one sales region.
with regions (region_key, region_name, is_home_market) as (

    values
    ('uk', 'United Kingdom', true),
    ('eu', 'European Union', false),
    ('row', 'Rest of the world', false)

)

select
    region_key,
    region_name,
    is_home_market
from regions
