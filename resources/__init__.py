"""Dagster resources (lake, dbt, notifier) and what assets and sensors share about partitions. No pipeline logic."""
