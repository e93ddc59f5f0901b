{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
The validations of configuration-policy.yaml. "of" is one of its variables, a list of objects: "where" is the configuration that the
object is in, "path" the path of the object in it with a dot, "kind" the kind of the configuration, "fields" what it holds.
*/}}

{{/* The value of a field satisfies "is"; an absent field has the value null. */}}
{{- define "gpu-dra-driver.configuration.field" -}}
- expression: >-
    variables.{{ .of }}.all(it, [it.fields.?{{ .field }}.orValue(null)].all(value, {{ .is }}))
  messageExpression: >-
    variables.{{ .of }}.filter(it, ![it.fields.?{{ .field }}.orValue(null)].all(value, {{ .is }}))
    .map(it, it.where + ' is refused: ' + it.path + '{{ .field }} is '
      + (it.fields.?{{ .field }}.hasValue() ? {{ include "gpu-dra-driver.configuration.value" (printf "it.fields.%s" .field) }} : 'missing')
      + ': expected {{ .expected }}')[0]
{{- end }}

{{/* All keys satisfy "are". */}}
{{- define "gpu-dra-driver.configuration.keys" -}}
- expression: >-
    variables.{{ .of }}.all(it, it.fields.all(key, {{ .are }}))
  messageExpression: >-
    variables.{{ .of }}.filter(it, !it.fields.all(key, {{ .are }}))
    .map(it, it.where + ' is refused: ' + it.path
      + {{ include "gpu-dra-driver.configuration.key" (printf "it.fields.filter(key, !(%s)).min()" .are) }} + {{ .else }})[0]
{{- end }}

{{/* The values of all keys satisfy "are". */}}
{{- define "gpu-dra-driver.configuration.values" -}}
- expression: >-
    variables.{{ .of }}.all(it, it.fields.all(key, [it.fields[key]].all(value, {{ .are }})))
  messageExpression: >-
    variables.{{ .of }}.filter(it, !it.fields.all(key, [it.fields[key]].all(value, {{ .are }})))
    .map(it, it.where + ' is refused: ' + [it.fields.filter(key, ![it.fields[key]].all(value, {{ .are }})).min()]
      .map(key, it.path + key + ' is ' + {{ include "gpu-dra-driver.configuration.value" "it.fields[key]" }} + ': expected {{ .expected }}')[0])[0]
{{- end }}

{{/* An expression "holds". */}}
{{- define "gpu-dra-driver.configuration.holds" -}}
- expression: >-
    variables.{{ .of }}.all(it, {{ .holds }})
  messageExpression: >-
    variables.{{ .of }}.filter(it, !({{ .holds }})).map(it, it.where + ' is refused: ' + it.path + {{ .else }})[0]
{{- end }}

{{/* The beginning of a value, as the driver prints it. Within a list, texts are quoted. */}}
{{- define "gpu-dra-driver.configuration.value" -}}
[{{ . }}].map(v, type(v) == double ? '[' + string(v) + ']' : '%s'.format([[v]])).map(v, v.substring(1, size(v) > 82 ? 81 : size(v) - 1))[0]
{{- end }}

{{/* The beginning of a key, as the driver prints it: quoted where it has unprintable characters. */}}
{{- define "gpu-dra-driver.configuration.key" -}}
[{{ . }}].map(k, k.matches('^[ -~]*$') ? k : '%s'.format([[k]])).map(k, size(k) > 80 ? k.substring(0, 80) : k)[0]
{{- end }}
