{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/*
The groups of rules/alerts.yaml as YAML, without the disabled alerts: a threshold replaces its name between two @, @job@ is the label
of the scraped pods, and each alert has the annotation runbook_url.
*/}}
{{- define "gpu-dra-driver.alerts" -}}
{{- $values := .Values.monitoring.prometheusRule -}}
{{- $text := .Files.Get "rules/alerts.yaml" | replace "@job@" (include "gpu-dra-driver.name" .) -}}
{{- range $name, $value := $values.thresholds -}}
{{- $text = $text | replace (printf "@%s@" $name) (toString $value) -}}
{{- end -}}
{{- $groups := list -}}
{{- $names := list -}}
{{- range ($text | fromYaml).groups -}}
{{- $rules := list -}}
{{- range .rules -}}
{{- $names = append $names .alert -}}
{{- if not (has .alert $values.disabledAlerts) -}}
{{- $runbook := dict "runbook_url" (printf "%s%s" $values.runbookUrl (lower .alert)) -}}
{{- $rules = append $rules (merge (dict "annotations" (merge $runbook .annotations)) .) -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}
{{- $groups = append $groups (dict "name" .name "rules" $rules) -}}
{{- end -}}
{{- end -}}
{{- range $values.disabledAlerts -}}
{{- if not (has . $names) -}}
{{- fail (printf "monitoring.prometheusRule.disabledAlerts has %s: it must be one of %s" . (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- dict "groups" $groups | toYaml -}}
{{- end }}
