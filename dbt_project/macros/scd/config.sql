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
    {%- if not o['columns'] or o['columns'] is not mapping -%}
        {%- do scd_refuse("columns is missing: give each attribute its type, such as {'city': 2, 'email': 1}.") -%}
    {%- endif -%}
    {%- for name, type in o['columns'].items() -%}
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
    {%- elif o['snapshot_at'] -%}
        {%- do scd_refuse("snapshot_at belongs to log='snapshots'.") -%}
    {%- endif -%}
    {%- do o.update({'valid_from': o['valid_from'] or (o['sequence_by'] or [none])[0]}) -%}
    {%- if not o['valid_from'] -%}
        {%- do scd_refuse("valid_from is missing: name the column with the time of a change.") -%}
    {%- endif -%}
    {%- do o.update({'sequence_by': o['sequence_by'] or [o['valid_from']]}) -%}
    {%- do o.update({
        'deletes_happen': (o['delete_when'] or o['truncate_when']
            or (o['log'] == 'snapshots' and o['absent_is_delete'])) and true,
        'keeps_deleted': o['deletes'] == 'keep',
        'from_beginning': o['first_version_from'] == 'beginning',
        'in_order_of_time': o['sequence_by'][0] == o['valid_from'],
    }) -%}
    {%- set made = scd_output_names(o) -%}
    {%- for name in made if made.count(name) > 1 -%}
        {%- do scd_refuse("two columns of the dimension would be called '" ~ name ~ "'. Rename one in the log.") -%}
    {%- endfor -%}
    {{ return(o) }}
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
    {{ exceptions.raise_compiler_error("scd '" ~ this.identifier ~ "': " ~ message) }}
{%- endmacro %}

{#- Quoted names, joined; `prefix` such as 'log.'. -#}
{% macro scd_quoted(names, prefix='') -%}
    {%- for name in names %}{{ prefix }}{{ adapter.quote(name) }}{{ ', ' if not loop.last }}{% endfor -%}
{%- endmacro %}
