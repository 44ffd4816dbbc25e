"""Dagster assets and checks: thin. They call the engine (`sluice`) or dbt and report what people want to see."""
