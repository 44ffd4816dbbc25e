{#-
    The options of a model with `materialized='scd'`: read, completed with their defaults, and refused where they make
    no sense. What they mean is in docs/scd.md; nothing here touches the lake.
-#}

{#- The options as one dictionary; raises a compiler error that names the option and what it may be. -#}
{% macro scd_options() -%}
    {%- set known = {
        'log': ['changes', 'snapshots'],
        'deletes': ['close', 'keep'],
        'first_version_from': ['change', 'beginning'],
        'overwrite': ['key', 'version', 'start'],
    } -%}
    {%- do scd_known_options(['columns', 'natural_key', 'valid_from', 'sequence_by', 'delete_when', 'truncate_when',
        'control_columns', 'surrogate_key', 'deletes', 'first_version_from', 'beginning', 'overwrite', 'log', 'snapshot_at',
        'absent_is_delete', 'present_columns', 'open_end', 'sighting_when', 'unknown_member', 'changes_in']) -%}
    {%- set o = {
        'columns': config.get('columns', {}),
        'keys': scd_list(config.get('natural_key')),
        'valid_from': config.get('valid_from'),
        'sequence_by': scd_list(config.get('sequence_by')),
        'delete_when': config.get('delete_when'),
        'truncate_when': config.get('truncate_when'),
        'control_columns': scd_list(config.get('control_columns')),
        'surrogate_key': config.get('surrogate_key', 'version_key'),
        'deletes': config.get('deletes', 'close'),
        'first_version_from': config.get('first_version_from', 'change'),
        'beginning': config.get('beginning', "timestamp '1900-01-01'"),
        'overwrite': config.get('overwrite', 'key'),
        'log': config.get('log', 'changes'),
        'snapshot_at': config.get('snapshot_at'),
        'absent_is_delete': config.get('absent_is_delete', true),
        'present_columns': config.get('present_columns'),
        'open_end': config.get('open_end'),
        'sighting_when': config.get('sighting_when'),
        'unknown_member': config.get('unknown_member', false),
        'changes_in': config.get('changes_in', []),
    } -%}
    {%- for name, values in known.items() if o[name] not in values -%}
        {%- do scd_refuse(name ~ " is '" ~ o[name] ~ "'; it may be " ~ values | join(' or ') ~ ".") -%}
    {%- endfor -%}
    {%- if not o['keys'] -%}
        {%- do scd_refuse("natural_key is missing: name the column, or the list of columns, that names one thing.") -%}
    {%- endif -%}
    {%- if o['columns'] is not mapping -%}
        {%- do scd_refuse("columns is a list; it gives each attribute its type, such as {'city': 2, 'email': 1}.") -%}
    {%- endif -%}
    {%- if not o['columns'] -%}
        {%- do scd_refuse("columns is missing: give each attribute its type, such as {'city': 2, 'email': 1}.") -%}
    {%- endif -%}
    {%- for name, type in o['columns'].items() -%}
        {%- if type is string -%}
            {%- do scd_refuse("column '" ~ name ~ "' has the text '" ~ type ~ "' for its type; write the number.") -%}
        {%- endif -%}
        {%- if type not in [0, 1, 2, 3, 4, 6] -%}
            {%- do scd_refuse("column '" ~ name ~ "' has type " ~ type ~ "; it may be 0, 1, 2, 3, 4 or 6.") -%}
        {%- endif -%}
        {%- if name in o['keys'] -%}
            {%- do scd_refuse("column '" ~ name ~ "' is part of the natural key and cannot have a type, too.") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if o['log'] == 'snapshots' -%}
        {%- if not o['snapshot_at'] -%}
            {%- do scd_refuse("a log of snapshots needs snapshot_at, the column with the time of the extract.") -%}
        {%- endif -%}
        {%- for name in ['truncate_when', 'present_columns', 'sighting_when'] if o[name] -%}
            {%- do scd_refuse(name ~ " belongs to a log of changes, and this one has snapshots.") -%}
        {%- endfor -%}
        {%- do o.update({'sequence_by': o['sequence_by'] or [o['snapshot_at']]}) -%}
    {%- else -%}
        {%- for name in ['snapshot_at', 'absent_is_delete'] if config.get(name) -%}
            {%- do scd_refuse(name ~ " belongs to log='snapshots'.") -%}
        {%- endfor -%}
    {%- endif -%}
    {%- do o.update({'valid_from': o['valid_from'] or (o['sequence_by'] or [none])[0]}) -%}
    {%- if not o['valid_from'] -%}
        {%- do scd_refuse("valid_from and sequence_by are missing: name the column with the time of a change, or those "
            ~ "that order the changes.") -%}
    {%- endif -%}
    {%- do o.update({'sequence_by': o['sequence_by'] or [o['valid_from']]}) -%}
    {%- do o.update({
        'deletes_happen': (o['delete_when'] or o['truncate_when']
            or (o['log'] == 'snapshots' and o['absent_is_delete'])) and true,
        'keeps_deleted': o['deletes'] == 'keep',
        'from_beginning': o['first_version_from'] == 'beginning',
        'in_order_of_time': o['sequence_by'][0] == o['valid_from'],
    }) -%}
    {%- do o.update({
        'states_may_be_changes': o['in_order_of_time'] and o['log'] == 'changes' and not o['truncate_when']
            and not o['present_columns'] and not (o['deletes_happen'] and o['keeps_deleted'])
    }) -%}
    {#- Names are the same in any case of letters; the last two are of columns that come and go on the way. -#}
    {%- set made = scd_output_names(o) | map('lower') | list + ([] if o['sighting_when'] and o['unknown_member'] else
        ['is_inferred', 'is_unknown'] | reject('in', scd_flags(o)) | list) -%}
    {%- for name in made if made.count(name) > 1 -%}
        {%- do scd_refuse("two columns of the dimension would be called '" ~ name ~ "'. Rename one in the log.") -%}
    {%- endfor -%}
    {{ return(o) }}
{%- endmacro %}

{#-
    Refuse options nobody reads: a misspelt one would be one left out. What is neither of dbt nor of ours belongs into
    `meta`, where dbt wants it, too.
-#}
{% macro scd_known_options(ours) -%}
    {%- set of_dbt = ['access', 'alias', 'batch_size', 'begin', 'column_types', 'concurrent_batches', 'contract', 'database',
        'docs', 'enabled', 'event_time', 'freshness', 'full_refresh', 'grants', 'group', 'incremental_strategy', 'lookback',
        'materialized', 'meta', 'on_configuration_change', 'on_schema_change', 'packages', 'persist_docs', 'post-hook',
        'post_hook', 'pre-hook', 'pre_hook', 'quoting', 'schema', 'static_analysis', 'submission_method', 'tags', 'unique_key'] -%}
    {%- for name in model.config.keys() | list if name not in ours + of_dbt -%}
        {%- do scd_refuse("there is no option '" ~ name ~ "'; its options are " ~ ours | join(', ')
            ~ ". What is for others belongs into meta.") -%}
    {%- endfor -%}
{%- endmacro %}

{#- The tables a model follows, after a look at how they are named; `inner` are the names an entry may have. -#}
{% macro scd_followed(feeds, inner) -%}
    {%- set tables = [] -%}
    {%- for feed in feeds -%}
        {%- if feed is not mapping or not feed.get('table') -%}
            {%- do scd_refuse("changes_in has the entry " ~ tojson(feed) ~ "; write {'table': 'schema.table'}.") -%}
        {%- endif -%}
        {%- for name in feed if name not in inner -%}
            {%- do scd_refuse("changes_in of " ~ feed['table'] ~ " has no '" ~ name ~ "'; it may have " ~ inner | join(', ') ~ ".") -%}
        {%- endfor -%}
        {%- do tables.append(feed['table']) -%}
    {%- endfor -%}
    {{ return(tables) }}
{%- endmacro %}

{#- Names of the columns of the main table, in order. -#}
{% macro scd_output_names(o) -%}
    {%- set names = [o['surrogate_key']] + o['keys'] + ['version'] -%}
    {%- for name, type in o['columns'].items() -%}
        {%- do names.append(name) -%}
        {%- if type == 3 %}{% do names.append('previous_' ~ name) %}{% endif -%}
        {%- if type == 6 %}{% do names.append('current_' ~ name) %}{% endif -%}
    {%- endfor -%}
    {{ return(names + ['valid_from', 'valid_to', 'is_current'] + scd_flags(o)) }}
{%- endmacro %}

{#- Names of the boolean columns that depend on options. -#}
{% macro scd_flags(o) -%}
    {{ return(
        (['is_deleted'] if o['keeps_deleted'] else [])
        + (['is_inferred'] if o['sighting_when'] else [])
        + (['is_unknown'] if o['unknown_member'] else [])
    ) }}
{%- endmacro %}

{#-
    What one table holds: which columns make a version, and which follow in which way. The main table takes type 4
    as overwritten; its companion takes nothing but type 4, versioned.
-#}
{% macro scd_track(o, companion=false) -%}
    {%- set track = {
        'columns': [], 'versioned': [], 'original': [], 'newest': [], 'previous': [], 'current': [], 'run_last': []
    } -%}
    {%- for name, type in o['columns'].items() if not companion or type == 4 -%}
        {%- do track['columns'].append(name) -%}
        {%- if companion or type in [2, 6] %}{% do track['versioned'].append(name) %}{% endif -%}
        {%- if type == 0 %}{% do track['original'].append(name) %}{% endif -%}
        {%- if type == 3 or (type == 4 and not companion) or (type == 1 and o['overwrite'] == 'key') -%}
            {%- do track['newest'].append(name) -%}
        {%- endif -%}
        {%- if type == 1 and o['overwrite'] == 'version' %}{% do track['run_last'].append(name) %}{% endif -%}
        {%- if type == 3 %}{% do track['previous'].append(name) %}{% endif -%}
        {%- if type == 6 %}{% do track['current'].append(name) %}{% endif -%}
    {%- endfor -%}
    {{ return(track) }}
{%- endmacro %}

{% macro scd_list(value) -%}
    {{ return([] if value is none else ([value] if value is string else value | list)) }}
{%- endmacro %}

{#- Stop before anything is written, with the name of the model. -#}
{% macro scd_refuse(message) -%}
    {{ exceptions.raise_compiler_error(config.get('materialized') ~ " '" ~ this.identifier ~ "': " ~ message) }}
{%- endmacro %}

{#- Quoted names, joined; `prefix` such as 'log.'. -#}
{% macro scd_quoted(names, prefix='') -%}
    {%- for name in names %}{{ prefix }}{{ adapter.quote(name) }}{{ ', ' if not loop.last }}{% endfor -%}
{%- endmacro %}
