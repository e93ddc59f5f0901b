{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Name of the chart, for labels. */}}
{{- define "gpu-dra-driver.name" -}}
{{- default .Chart.Name .Values.nameOverride | replace "." "-" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Name of every object. Short enough that the longest suffix still makes a DNS label. */}}
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

{{/* The account of the DaemonSet. The binding and the admission policy take it from here too, so they cannot differ. */}}
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
Where the plugin's container sees driver.root. The folder *above* it is mounted, so that a driver container that
replaces or remounts the folder is followed without a restart of ours.
*/}}
{{- define "gpu-dra-driver.rootInside" -}}
{{- if eq .Values.driver.root "/" -}}
/driver-root
{{- else -}}
/driver-root/{{ base .Values.driver.root }}
{{- end -}}
{{- end }}

{{/*
Where the container sees a kernel tree (dict "path" "default" "name" "context"): its own one where the host's default is asked for,
since /proc/driver/nvidia and the PCI tree of sysfs are the same in every container; else a folder under the driver root.
*/}}
{{- define "gpu-dra-driver.treeInside" -}}
{{- $root := .context.Values.driver.root | trimSuffix "/" -}}
{{- if eq .path .default -}}
{{ .default }}
{{- else if hasPrefix (printf "%s/" $root) .path -}}
{{ include "gpu-dra-driver.rootInside" .context }}{{ trimPrefix $root .path }}
{{- else -}}
{{ fail (printf "driver.%s is %s: it must be %s or a folder under driver.root (%s)" .name .path .default .context.Values.driver.root) }}
{{- end -}}
{{- end }}

{{/* Where the plugin finds the driver and the kernel's files about it. */}}
{{- define "gpu-dra-driver.rootFlags" -}}
- --driver-root={{ include "gpu-dra-driver.rootInside" . }}
- --driver-root-host={{ .Values.driver.root }}
- --proc-root={{ include "gpu-dra-driver.treeInside" (dict "context" . "name" "procRoot" "path" .Values.driver.procRoot "default" "/proc") }}
- --sys-root={{ include "gpu-dra-driver.treeInside" (dict "context" . "name" "sysRoot" "path" .Values.driver.sysRoot "default" "/sys") }}
{{- end }}

{{/* Rights of everything but the plugin: none. */}}
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

{{/* Where the driver's image is sure to be: pods of the chart's hooks run on the same nodes as the DaemonSet. */}}
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

{{/*
Not empty where a request must name an amount to get a share. Extended resources cannot name one, so a class that offers shares
as an extended resource switches it off.
*/}}
{{- define "gpu-dra-driver.requireShareAmount" -}}
{{- if and .Values.sharing.requireAmount (not .Values.deviceClasses.mps.extendedResourceName) (not .Values.deviceClasses.timeSlicing.extendedResourceName) -}}
true
{{- end -}}
{{- end }}

{{/*
The patches that name the default amount in one kind of request: `is` says whether a request r is of that kind, `request` is what
holds its class and capacity, `path` where that is below the request.
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
