{#- What the models of the shop's events share. -#}

{#-
    Session of an event, in the bronze table and in what is made of it: of an app the tracker names it in a context of its
    own.
-#}
{% macro session_of_event() -%}
    coalesce(domain_sessionid, json_extract_string(client_session, '$[0].sessionId'))
{%- endmacro %}

{#- A value of the one object of a context; null where there is none. -#}
{% macro of_context(context, name) -%}
    json_extract_string({{ context }}, '$[0].{{ name }}')
{%- endmacro %}
