"""Dagster resources: the lake, dbt, the notifier. They hold settings and hand out engine objects; no logic of their own."""
