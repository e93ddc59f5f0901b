{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Refuses values that the API server would refuse later or that would never take effect. */}}
{{- define "gpu-tenants.checks" -}}
{{- $resources := include "gpu-tenants.extendedResources" . | fromJson }}
{{- range $namespace, $tenant := .Values.tenants }}
{{- $limits := default dict $tenant.limits }}
{{- with $tenant.quota }}
{{- range $key, $value := .hard }}
{{- if and (hasPrefix "limits." $key) (contains "/" $key) }}
{{- fail (printf "tenants.%s.quota.hard has %s: Kubernetes counts extended resources by requests only; use quota.extendedResources" $namespace $key) }}
{{- end }}
{{- end }}
{{- if hasKey $limits "classes" }}
{{- range $class, $count := .devices }}
{{- if not (has $class $limits.classes) }}
{{- fail (printf "tenants.%s.quota.devices has %s, which limits.classes of the namespace does not allow: add the class there, or remove its quota" $namespace $class) }}
{{- end }}
{{- end }}
{{- range $resource, $count := .extendedResources }}
{{- $class := default (trimPrefix "deviceclass.resource.kubernetes.io/" $resource) (get $resources $resource) }}
{{- if hasPrefix "nvidia.com/mig-" $resource }}
{{- $class = printf "%s.nvidia.com" (trimPrefix "nvidia.com/" $resource) }}
{{- end }}
{{- if not (has $class $limits.classes) }}
{{- fail (printf "tenants.%s.quota.extendedResources has %s, of class %s, which limits.classes of the namespace does not allow: add the class there, or remove the quota" $namespace $resource $class) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
