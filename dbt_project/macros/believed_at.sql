{#-
    A table as readers saw it at a moment, to be read in FROM: the second axis of time. `valid_from` and `valid_to` say
    when something was so; this says what was known of it then.

      relation  ref() or source()
      moment    text such as '2026-01-05 12:00', of UTC unless it names another offset ('2026-01-05 12:00:00+02:00')

    The snapshot is that of the publication in force at that moment; it is looked up when the SQL is compiled, so that
    every table read with one moment is seen as of one instant. Maintenance keeps publications for SLUICE_BELIEF_DAYS.
-#}
{% macro believed_at(relation, moment) -%}
    {%- if not execute %}{{ return(relation) }}{% endif -%}
    {%- set publications = api.Relation.create(database=relation.database, schema='ops', identifier='publications') -%}
    {#- With a zone, of which a plain time knows nothing: it drops the offset. -#}
    {%- set then = "timezone('UTC', try_cast('" ~ moment | string | replace("'", "''") ~ "' as timestamptz))" -%}
    {%- if not run_query("select coalesce(isfinite(" ~ then ~ "), false)").rows[0][0] -%}
        {%- do exceptions.raise_compiler_error("believed_at: '" ~ moment ~ "' is no time; write 2026-01-05, "
            ~ "2026-01-05 12:00 or, with an offset, 2026-01-05 12:00:00+02:00.") -%}
    {%- endif -%}
    {#- As `sluice.publication` has it: numbers tell the order, and a time that still lies ahead tells nothing. -#}
    {%- set found = run_query(
        "select publication_id, snapshot_id, exists (select 1 from ducklake_snapshots('" ~ relation.database
        ~ "') as kept where kept.snapshot_id = seen.snapshot_id) from (select *, max(published_at) "
        ~ "filter (published_at <= timezone('UTC', now())) over (order by publication_id) as since from " ~ publications
        ~ ") as seen where since <= " ~ then ~ " order by publication_id desc limit 1"
    ).rows -%}
    {%- if not found -%}
        {%- do exceptions.raise_compiler_error("believed_at: nothing had been published by " ~ moment ~ ".") -%}
    {%- elif not found[0][2] -%}
        {%- do exceptions.raise_compiler_error("believed_at: what readers saw at " ~ moment ~ " (publication "
            ~ found[0][0] ~ ") is no longer kept. SLUICE_BELIEF_DAYS says for how long it is.") -%}
    {%- endif -%}
    {{ return('(select * from ' ~ relation ~ ' at (version => ' ~ found[0][1] ~ '))') }}
{%- endmacro %}
