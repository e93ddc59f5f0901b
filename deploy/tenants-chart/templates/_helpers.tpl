{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Prefix of every object, short enough for a DNS label with the longest suffix. */}}
{{- define "gpu-tenants.fullname" -}}
{{- .Release.Name | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "gpu-tenants.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What each form of a GPU is in ResourceSlices, as CEL; "driver" is the driver's name. */}}
{{- define "gpu-tenants.form" -}}
{{- $attributes := printf "device.attributes[%q]" .driver }}
{{- if or (eq .form "gpu") (eq .form "mig") -}}
{{ $attributes }}.type == "{{ .form }}"
{{- else -}}
{{ $attributes }}.type == "shared-gpu" && {{ $attributes }}.sharingStrategy == "{{ ternary "MPS" "TimeSlicing" (eq .form "mps") }}"
{{- end }}
{{- end }}

{{/* The classes of extended resources, those of pools included, as JSON. */}}
{{- define "gpu-tenants.extendedResources" -}}
{{- $found := deepCopy .Values.extendedResources }}
{{- range $class, $pool := .Values.pools }}
{{- with $pool.extendedResourceName }}
{{- if hasKey $found . }}
{{- fail (printf "pools.%s.extendedResourceName is %s, the extended resource of class %s: give each class a name of its own" $class . (get $found .)) }}
{{- end }}
{{- $_ := set $found . $class }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* The strategies of classes of shares, those of pools included, as JSON. */}}
{{- define "gpu-tenants.shareClasses" -}}
{{- $found := deepCopy .Values.shareClasses }}
{{- range $class, $pool := .Values.pools }}
{{- with get (dict "mps" "MPS" "timeSlicing" "TimeSlicing") (default "gpu" $pool.form) }}
{{- $_ := set $found $class . }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* Limits as the data of a ConfigMap; a list is a text with commas. */}}
{{- define "gpu-tenants.limits" -}}
{{- $limits := . }}
{{- range $key := list "devicesPerClaim" "classes" "strategies" }}
{{- if hasKey $limits $key }}
{{ $key }}: {{ kindIs "slice" (get $limits $key) | ternary (get $limits $key | join ",") (get $limits $key | toString) | quote }}
{{- end }}
{{- end }}
toleratedTaints: {{ default list $limits.toleratedTaints | join "," | quote }}
{{- end }}
