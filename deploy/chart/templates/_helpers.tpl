{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Name of the chart, for labels. */}}
{{- define "gpu-dra-driver.name" -}}
{{- default .Chart.Name .Values.nameOverride | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Name of every object, short enough to be a DNS label with the longest suffix. */}}
{{- define "gpu-dra-driver.fullname" -}}
{{- $name := include "gpu-dra-driver.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The service account of the DaemonSet, also used by the role binding and the admission policies. */}}
{{- define "gpu-dra-driver.serviceAccountName" -}}
{{- default (include "gpu-dra-driver.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "gpu-dra-driver.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gpu-dra-driver.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gpu-dra-driver.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "gpu-dra-driver.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ include "gpu-dra-driver.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "gpu-dra-driver.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/*
The path of driver.root in the plugin's container. The parent of driver.root is mounted, so that a driver container can replace
or remount the directory without a restart of the plugin.
*/}}
{{- define "gpu-dra-driver.rootInside" -}}
{{- if eq .Values.driver.root "/" -}}
/driver-root
{{- else -}}
/driver-root/{{ base .Values.driver.root }}
{{- end -}}
{{- end }}

{{/*
The path of a kernel tree in the container (dict "path" "default" "name" "context"): the default where the value is the default,
because /proc/driver/nvidia and the PCI tree of sysfs are the same in every container; else a directory under the driver root.
*/}}
{{- define "gpu-dra-driver.treeInside" -}}
{{- $root := .context.Values.driver.root | trimSuffix "/" -}}
{{- if eq .path .default -}}
{{ .default }}
{{- else if hasPrefix (printf "%s/" $root) .path -}}
{{ include "gpu-dra-driver.rootInside" .context }}{{ trimPrefix $root .path }}
{{- else -}}
{{ fail (printf "driver.%s is %s: it must be %s or a directory under driver.root (%s)" .name .path .default .context.Values.driver.root) }}
{{- end -}}
{{- end }}

{{/* Flags for the driver root and the kernel's files about the driver. */}}
{{- define "gpu-dra-driver.rootFlags" -}}
- --driver-root={{ include "gpu-dra-driver.rootInside" . }}
- --driver-root-host={{ .Values.driver.root }}
- --proc-root={{ include "gpu-dra-driver.treeInside" (dict "context" . "name" "procRoot" "path" .Values.driver.procRoot "default" "/proc") }}
- --sys-root={{ include "gpu-dra-driver.treeInside" (dict "context" . "name" "sysRoot" "path" .Values.driver.sysRoot "default" "/sys") }}
{{- end }}

{{/* The same as environment variables. */}}
{{- define "gpu-dra-driver.rootVariables" -}}
- name: DRIVER_ROOT
  value: {{ include "gpu-dra-driver.rootInside" . }}
- name: DRIVER_ROOT_HOST
  value: {{ .Values.driver.root }}
- name: PROC_ROOT
  value: {{ include "gpu-dra-driver.treeInside" (dict "context" . "name" "procRoot" "path" .Values.driver.procRoot "default" "/proc") }}
- name: SYS_ROOT
  value: {{ include "gpu-dra-driver.treeInside" (dict "context" . "name" "sysRoot" "path" .Values.driver.sysRoot "default" "/sys") }}
{{- end }}

{{/* The directory of the hook program, on the node and in the container. */}}
{{- define "gpu-dra-driver.hookDir" -}}
{{- $bin := "/home/kubernetes/bin" -}}
{{- $default := ternary (printf "%s/gpu-dra" $bin) "/opt/gpu-dra" (hasPrefix (printf "%s/" $bin) .Values.driver.root) -}}
{{ default $default .Values.cdiHook.directory }}
{{- end }}

{{/* Security context of all containers but those of the plugin and the MPS host. */}}
{{- define "gpu-dra-driver.unprivileged" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Pods of the chart's hooks run on the same nodes as the DaemonSet, because these nodes have the image. */}}
{{- define "gpu-dra-driver.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.kubeletPlugin.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.kubeletPlugin.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.kubeletPlugin.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The MIG profiles with a class of their own, as JSON: the listed profiles, then those of the listed models, each once. */}}
{{- define "gpu-dra-driver.migProfiles" -}}
{{- $known := .Files.Get "mig-models.yaml" | fromYaml -}}
{{- $profiles := default (list) .Values.deviceClasses.mig.profiles -}}
{{- range .Values.deviceClasses.mig.models -}}
{{- if not (hasKey $known .) -}}
{{ fail (printf "deviceClasses.mig.models has %s: it must be one of %s; list the profiles of another GPU in deviceClasses.mig.profiles" . (keys $known | sortAlpha | join ", ")) }}
{{- end -}}
{{- $profiles = concat $profiles (get $known .) -}}
{{- end -}}
{{- $profiles | uniq | toJson -}}
{{- end }}

{{/* Rules about faults of GPUs as a flag. */}}
{{- define "gpu-dra-driver.healthRules" -}}
{{- $rules := list -}}
{{- range $fault, $rule := . -}}
{{- $rules = append $rules (printf "%s=%s:%d" $fault $rule.effect (int (default 0 $rule.graceSeconds))) -}}
{{- end -}}
{{- join "," $rules -}}
{{- end }}

{{/* The text of mig.static.file, if it has the configuration of mig.static.config. The driver checks the rest. */}}
{{- define "gpu-dra-driver.staticMigFile" -}}
{{- $file := .Values.mig.static.file -}}
{{- $text := kindIs "string" $file | ternary $file (toYaml $file) -}}
{{- $content := fromYaml $text -}}
{{- if hasKey $content "Error" -}}
{{ fail (printf "mig.static.file is not a YAML mapping (%s): set it to a configuration file of mig-parted" $content.Error) }}
{{- end -}}
{{- $configs := get $content "mig-configs" -}}
{{- if or (not (kindIs "map" $configs)) (not $configs) -}}
{{ fail "mig.static.file has no mig-configs: set it to a configuration file of mig-parted" }}
{{- end -}}
{{- $names := keys $configs | sortAlpha | join ", " -}}
{{- $name := .Values.mig.static.config -}}
{{- if and $name (not (hasKey $configs $name)) -}}
{{ fail (printf "mig.static.config is %s: it must be one of %s" $name $names) }}
{{- else if and (not $name) (gt (len $configs) 1) -}}
{{ fail (printf "mig.static.config is empty: it must be one of %s" $names) }}
{{- end -}}
{{- $text -}}
{{- end }}

{{/*
Not empty where a request must name an amount to get a share. Extended resources cannot name an amount, so a class that offers
shares as an extended resource disables this.
*/}}
{{- define "gpu-dra-driver.requireShareAmount" -}}
{{- if and .Values.sharing.requireAmount (not .Values.deviceClasses.mps.extendedResourceName) (not .Values.deviceClasses.timeSlicing.extendedResourceName) -}}
true
{{- end -}}
{{- end }}

{{/*
The patches that add the default amount to one kind of request: `is` is true for a request r of this kind, `request` is the object
with its class and capacity, `path` is the path of that object below the request.
*/}}
{{- define "gpu-dra-driver.addShareAmount" -}}
variables.requests.transformList(i, r,
  {{ .is }} && {{ .request }}.deviceClassName in variables.amounts
  && !(variables.amounts[{{ .request }}.deviceClassName].name in {{ .request }}.?capacity.?requests.orValue({})),
  has({{ .request }}.capacity) && has({{ .request }}.capacity.requests)
  ? JSONPatch{op: 'add',
    path: variables.path + string(i) + {{ .path }} + '/capacity/requests/' + variables.amounts[{{ .request }}.deviceClassName].name,
    value: dyn(variables.amounts[{{ .request }}.deviceClassName].value)}
  : JSONPatch{op: 'add',
    path: variables.path + string(i) + {{ .path }} + '/capacity',
    value: dyn({'requests': {variables.amounts[{{ .request }}.deviceClassName].name: variables.amounts[{{ .request }}.deviceClassName].value}})})
{{- end }}
