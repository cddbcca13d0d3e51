"""Chat templates as the families write them, shortened to how they show tools and texts."""

from __future__ import annotations

QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- endif %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""  # noqa: E501

QWEN_CODER = """\
{% macro render_extra_keys(json_dict, handled_keys) %}
    {%- if json_dict is mapping %}
        {%- for json_key in json_dict if json_key not in handled_keys %}
            {{- '\\n<' ~ json_key ~ '>' ~ (json_dict[json_key] | tojson | safe) ~ '</' ~ json_key ~ '>' }}
        {%- endfor %}
    {%- endif %}
{% endmacro %}
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- "<|im_start|>system\\n" + (system_message or '') }}
{%- if tools is iterable and tools | length > 0 %}
    {%- for tool in tools %}
        {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
        {{- "\\n<function>\\n<name>" ~ tool.name ~ "</name>" }}
        {%- if tool.description is defined %}{{- '\\n<description>' ~ (tool.description | trim) ~ '</description>' }}{%- endif %}
        {%- for param_name, param_fields in tool.parameters.properties|items %}
            {{- '\\n<parameter>\\n<name>' ~ param_name ~ '</name>' }}
            {%- if param_fields.type is defined %}{{- '\\n<type>' ~ (param_fields.type | string) ~ '</type>' }}{%- endif %}
            {%- if param_fields.description is defined %}{{- '\\n<description>' ~ (param_fields.description | trim) ~ '</description>' }}{%- endif %}
            {{- render_extra_keys(param_fields, ['name', 'type', 'description']) }}
        {%- endfor %}
        {{- render_extra_keys(tool.parameters, ['type', 'properties']) }}
    {%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in loop_messages %}
    {%- if message.role == "assistant" and message.tool_calls is defined and message.tool_calls is iterable %}
        {{- '<|im_start|>' + message.role + (('\\n' + message.content | trim) if message.content else '') }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n<function=' + tool_call.name + '>\\n' }}
            {%- for args_name, args_value in tool_call.arguments|items %}
                {{- '<parameter=' + args_name + '>\\n' }}
                {%- set args_value = args_value | tojson | safe if args_value is mapping or (args_value is sequence and args_value is not string) else args_value | string %}
                {{- args_value }}{{- '\\n</parameter>\\n' }}
            {%- endfor %}
            {{- '</function>\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""  # noqa: E501

LLAMA = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- system_message }}{{- "<|eot_id|>" }}
{%- if tools is not none %}
    {%- set first_user_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{{- message.content }}
        {{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}{{- "}" }}{{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""  # noqa: E501

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- elif loop.first and system_message is defined %}{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}{{- message.content }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}{{- out[:-1] }}{{- "}" }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {%- set content = message.content %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + "}[/TOOL_RESULTS]" }}
    {%- endif %}
{%- endfor %}"""  # noqa: E501

GEMMA = """\
{%- macro format_parameters(properties, required) -%}
    {%- set ns = namespace(found_first=false) -%}
    {%- for key, value in properties | dictsort -%}
        {%- if ns.found_first %},{% endif -%}{%- set ns.found_first = true -%}
        {{- key }}:{
        {%- if value['description'] -%}description:<escape>{{ value['description'] }}<escape>{%- endif %}
        {%- if value['type'] | upper == 'STRING' -%}
            {%- if value['enum'] -%},enum:{{ format_argument(value['enum']) }}{%- endif %}
        {%- elif value['type'] | upper == 'OBJECT' -%}
            ,properties:{{ '{' }}{%- if value['properties'] is defined and value['properties'] is mapping -%}{{- format_parameters(value['properties'], value['required'] | default([])) -}}{%- endif -%}{{ '}' }}
            {%- if value['required'] -%},required:[{%- for item in value['required'] | default([]) -%}<escape>{{- item -}}<escape>{%- if not loop.last %},{% endif -%}{%- endfor -%}]{%- endif %}
        {%- endif %}
        {%- if value['title'] %},title:{{ value['title'] }}{%- endif %}
        ,type:<escape>{{ value['type'] | upper }}<escape>{{ '}' }}
    {%- endfor -%}
{%- endmacro -%}
{%- macro format_argument(argument, escape_keys=True) -%}
    {%- if argument is string -%}{{- '<escape>' + argument + '<escape>' -}}
    {%- elif argument is boolean -%}{{- 'true' if argument else 'false' -}}
    {%- elif argument is mapping -%}{{- '{' -}}
        {%- for key, value in argument | dictsort -%}{{- key -}}:{{- format_argument(value, escape_keys=escape_keys) -}}{%- if not loop.last %},{% endif -%}{%- endfor -%}
    {{- '}' -}}
    {%- elif argument is sequence -%}{{- '[' -}}{%- for item in argument -%}{{- format_argument(item) -}}{%- if not loop.last %},{% endif -%}{%- endfor -%}{{- ']' -}}
    {%- else -%}{{- argument -}}{%- endif -%}
{%- endmacro -%}
{{ bos_token }}
{%- if tools or messages[0]['role'] == 'system' -%}
    {{- '<start_of_turn>developer\\n' -}}
    {%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] | trim -}}{%- set messages = messages[1:] -%}{%- endif -%}
    {%- for tool in tools or [] -%}
        {{- '<start_function_declaration>declaration:' + tool['function']['name'] + '{' -}}
        description:<escape>{{- tool['function']['description'] -}}<escape>
        {%- set params = tool['function']['parameters'] -%}
        ,parameters:{ properties:{ {{- format_parameters(params['properties'], params['required']) -}} }
        ,type:<escape>{{- params['type'] | upper -}}<escape>}
        {{- '}<end_function_declaration>' -}}
    {%- endfor -%}
    {{- '<end_of_turn>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{- '<start_of_turn>' + role + '\\n' -}}
    {{- message['content'] | trim -}}
    {%- for tool_call in message['tool_calls'] or [] -%}
        {%- set function = tool_call['function'] -%}
        {{- '<start_function_call>call:' + function['name'] + '{' -}}
        {%- for key, value in function['arguments'] | dictsort -%}
            {{- key -}}:{{- format_argument(value, escape_keys=False) -}}{%- if not loop.last %},{% endif -%}
        {%- endfor -%}
        {{- '}<end_function_call>' -}}
    {%- endfor -%}
    {{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}"""  # noqa: E501

DEEPSEEK = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{% set ns = namespace(is_first=false, is_tool=false, system_prompt='', is_first_sp=true) %}
{%- for message in messages %}{%- if message['role'] == 'system' %}
    {%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}
    {%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}
{%- endif %}{%- endfor %}
{% if tools is defined and tools is not none %}
    {% set tool_ns = namespace(text='## Tools\\nYou have access to the following tools:\\n') %}
    {% for tool in tools %}
        {% set tool_ns.text = tool_ns.text + '\\n### ' + tool.function.name + '\\nDescription: ' + tool.function.description + '\\n\\nParameters: ' + (tool.function.parameters | tojson) + '\\n' %}
    {% endfor %}
    {% set ns.system_prompt = ns.system_prompt + '\\n\\n' + tool_ns.text %}
{% endif %}
{{ bos_token }}{{ ns.system_prompt }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{ '<|User|>' + message['content'] }}{%- endif %}
    {%- if message['role'] == 'assistant' and message['tool_calls'] is defined %}
        {{- '<|Assistant|></think>' + (message['content'] or '') + '<|tool_calls_begin|>' }}
        {%- for tool in message['tool_calls'] %}
            {%- if tool['function']['arguments'] is string %}{%- set arguments = tool['function']['arguments'] %}
            {%- else %}{%- set arguments = tool['function']['arguments'] | tojson %}{%- endif %}
            {{- '<|tool_call_begin|>' + tool['function']['name'] + '<|tool_sep|>' + arguments + '<|tool_call_end|>' }}
        {%- endfor %}{{- '<|tool_calls_end|><|end_of_sentence|>' }}
    {%- elif message['role'] == 'assistant' %}
        {%- set content = message['content'] -%}
        {%- if '</think>' in content %}{%- set content = content.split('</think>', 1)[1] -%}{%- endif %}
        {{ '<|Assistant|></think>' + content + '<|end_of_sentence|>' }}
    {%- endif %}
    {%- if message['role'] == 'tool' %}{{ '<|tool_output_begin|>' + message['content'] + '<|tool_output_end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|></think>' }}{%- endif %}"""  # noqa: E501

SMOLLM = """\
{%- if messages[0].role == "system" %}{%- set system_message = messages[0].content -%}{%- endif %}
{{- "<|im_start|>system\\n" }}{{- (system_message or "").rstrip() }}
{%- if tools %}
    {%- set ns = namespace(xml_tool_string="You may call one or more functions.\\n<tools>\\n") -%}
    {%- for tool in tools[:] -%}
        {%- set ns.xml_tool_string = ns.xml_tool_string ~ (tool.function | tojson) ~ "\\n" -%}
    {%- endfor -%}
    {{- ns.xml_tool_string + "</tools>" -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}{{ "<|im_start|>" + message.role + "\\n" + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {{- "<|im_start|>assistant\\n" + content.lstrip("\\n") }}
        {%- for call in message.tool_calls or [] %}{{- "<tool_call>" ~ (call.function | tojson) ~ "</tool_call>" }}{%- endfor %}
        {{- "<|im_end|>\\n" }}
        {% endgeneration %}
    {%- elif message.role == "tool" -%}{{ "<|im_start|>" + "user\\n" + content + "<|im_end|>\\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<|im_start|>assistant\\n" }}{%- endif -%}"""  # noqa: E501

GPT_OSS = """\
{%- macro render_typescript_type(param_spec, required_params) -%}
    {%- if param_spec.type == "array" -%}
        {%- if param_spec['items'] -%}{{- render_typescript_type(param_spec['items'], required_params) + "[]" -}}{%- else -%}{{- "any[]" }}{%- endif -%}
    {%- elif param_spec.type == "string" -%}
        {%- if param_spec.enum -%}{{- '"' + param_spec.enum|join('" | "') + '"' -}}{%- else -%}{{- "string" }}{%- endif -%}
    {%- elif param_spec.type == "object" -%}
        {%- if param_spec.properties -%}{{- "{\\n" }}
            {%- for prop_name, prop_spec in param_spec.properties.items() -%}
                {{- prop_name -}}{%- if prop_name not in (param_spec.required or []) -%}{{- "?" }}{%- endif -%}
                {{- ": " }}{{ render_typescript_type(prop_spec, param_spec.required or []) }}
                {%- if prop_spec.description %}{{- " // " + prop_spec.description }}{%- endif %}
                {%- if not loop.last -%}{{-", " }}{%- endif -%}
            {%- endfor -%}{{- "}" }}
        {%- else -%}{{- "object" }}{%- endif -%}
    {%- else -%}{{- "any" }}{%- endif -%}
{%- endmacro -%}
{%- if messages[0].role == "system" %}{%- set developer_message = messages[0].content %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set developer_message = "" %}{%- set loop_messages = messages %}{%- endif %}
{{- "<|start|>developer<|message|>" + developer_message }}
{%- if tools -%}
    {{- "# Tools\\n\\nnamespace functions {\\n\\n" }}
    {%- for tool in tools -%}
        {%- set tool = tool.function -%}
        {{- "// " + tool.description + "\\n" + "type " + tool.name + " = (_: {\\n" }}
        {%- for param_name, param_spec in tool.parameters.properties.items() %}
            {%- if param_spec.description %}{{- "// " + param_spec.description + "\\n" }}{%- endif %}
            {{- param_name }}{%- if param_name not in (tool.parameters.required or []) -%}{{- "?" }}{%- endif -%}{{- ": " }}
            {{- render_typescript_type(param_spec, tool.parameters.required or []) }}
            {%- if param_spec.default is defined -%}{{- ", // default: " + (param_spec.default if param_spec.default is string else param_spec.default|tojson) }}{%- endif -%}
            {{- ",\\n" }}
        {%- endfor %}
        {{- "}) => any;\\n\\n" }}
    {%- endfor %}
{%- endif -%}
{{- "<|end|>" }}
{%- for message in loop_messages -%}
    {%- if message.role == "assistant" and "tool_calls" in message %}
        {{- "<|start|>assistant<|channel|>commentary<|message|>" + message.content }}
        {%- for tool_call in message.tool_calls %}
            {%- set tool_call = tool_call.function %}
            {{- " to=functions." + tool_call.name + " <|constrain|>json<|message|>" }}{{- tool_call.arguments|tojson }}{{- "<|call|>" }}
        {%- endfor %}
    {%- else %}{{- "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" }}{%- endif %}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"""  # noqa: E501

WITH_TOOLS = {
    "qwen": QWEN,
    "qwen coder": QWEN_CODER,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "deepseek": DEEPSEEK,
    "smollm": SMOLLM,
    "gpt-oss": GPT_OSS,
}
