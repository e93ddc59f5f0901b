{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* The beginning of a policy: its "rule", whether it is also about "pods", and the "root". Variables follow. */}}
{{- define "gpu-tenants.policy" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ include "gpu-tenants.fullname" .root }}-{{ .rule }}
  labels:
    {{- include "gpu-tenants.labels" .root | nindent 4 }}
spec:
  failurePolicy: Fail
  paramKind:
    apiVersion: v1
    kind: ConfigMap
  matchConstraints:
    resourceRules:
      # What these objects ask for is immutable. Objects of older versions are converted first.
      - apiGroups: [resource.k8s.io]
        apiVersions: [v1]
        resources: [resourceclaims, resourceclaimtemplates]
        operations: [CREATE]
      {{- if .pods }}
      - apiGroups: [""]
        apiVersions: [v1]
        resources: [pods]
        operations: [CREATE]
      {{- end }}
{{- end }}

{{/* What a claim or template asks for. Type checking knows only one kind, hence dyn(). */}}
{{- define "gpu-tenants.policy.claims" -}}
- name: path
  expression: >-
    request.kind.kind == 'ResourceClaimTemplate' ? 'spec.spec.devices' : 'spec.devices'
- name: devices
  expression: >-
    request.kind.kind == 'Pod' ? dyn({})
    : request.kind.kind == 'ResourceClaimTemplate' ? dyn(dyn(object).spec.spec.?devices.orValue({}))
    : dyn(dyn(object).spec.?devices.orValue({}))
# For each request a list: the request itself, or its alternatives.
- name: requests
  expression: >-
    variables.devices.?requests.orValue([]).transformList(i, asked,
      (has(asked.exactly) ? dyn([asked.exactly]) : dyn(asked.?firstAvailable.orValue([]))).transformList(j, one, {
        'path': dyn(variables.path + '.requests[' + string(i) + ']'
          + (has(asked.exactly) ? '.exactly' : '.firstAvailable[' + string(j) + ']')),
        'class': dyn(one.?deviceClassName.orValue('')),
        'devices': dyn(one.?allocationMode.orValue('') == 'All' ? 32 : one.?count.orValue(1)),
        'isAll': dyn(one.?allocationMode.orValue('') == 'All'),
        'amounts': dyn(one.?capacity.?requests.orValue({})), 'tolerations': dyn(one.?tolerations.orValue([]))}))
{{- end }}

{{/* The extended resources of GPUs that the containers of a pod ask for; limits without requests have become requests already. */}}
{{- define "gpu-tenants.policy.pods" -}}
- name: classes
  expression: >-
    {{ include "gpu-tenants.extendedResources" . }}
- name: containers
  expression: >-
    (request.kind.kind != 'Pod' ? []
      : dyn(object).spec.containers.transformList(i, one,
        {'path': dyn('spec.containers[' + string(i) + ']'), 'ends': dyn(false), 'of': dyn(one)})
      + dyn(object).spec.?initContainers.orValue([]).transformList(i, one,
        {'path': dyn('spec.initContainers[' + string(i) + ']'), 'ends': dyn(one.?restartPolicy.orValue('') != 'Always'), 'of': dyn(one)}))
    .map(container, {'path': dyn(container.path + '.resources'), 'ends': dyn(container.ends),
      'resources': dyn(container.of.?resources.?requests.orValue({}).transformList(name, amount,
        name in variables.classes || name.startsWith('deviceclass.resource.kubernetes.io/') || name.startsWith('nvidia.com/'), {
          'name': dyn(name), 'devices': dyn(quantity(string(amount)).asInteger()),
          'class': dyn(name in variables.classes ? variables.classes[name]
            : name.startsWith('deviceclass.resource.kubernetes.io/') ? name.substring(35)
            : name.startsWith('nvidia.com/mig-') ? name.substring(11) + '.nvidia.com' : name)}))})
{{- end }}

{{/* The bindings of a policy: its "rule" with the limits of each tenant, and of the namespaces that are no tenants; and the "root". */}}
{{- define "gpu-tenants.policy.bindings" -}}
{{- $name := include "gpu-tenants.fullname" .root }}
{{- $rule := .rule }}
{{- range $namespace, $tenant := .root.Values.tenants }}
{{- $selector := dict "key" "kubernetes.io/metadata.name" "operator" "In" "values" (list $namespace) }}
{{ include "gpu-tenants.policy.binding" (dict "rule" $rule "suffix" (printf "limits-%s" $namespace) "selector" $selector "root" $.root) }}
{{- end }}
{{- with .root.Values.otherNamespaces }}
{{- if .limits }}
{{- $known := concat .exempt (keys $.root.Values.tenants) | uniq | sortAlpha }}
{{- $selector := dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" $known }}
{{ include "gpu-tenants.policy.binding" (dict "rule" $rule "suffix" "other-namespaces" "selector" $selector "root" $.root) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gpu-tenants.policy.binding" -}}
{{- $name := include "gpu-tenants.fullname" .root -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}-{{ .rule }}-{{ .suffix }}
  labels:
    {{- include "gpu-tenants.labels" .root | nindent 4 }}
spec:
  policyName: {{ $name }}-{{ .rule }}
  validationActions: [Deny]
  paramRef:
    name: {{ $name }}-{{ .suffix }}
    namespace: {{ .root.Release.Namespace }}
    # Without the limits, nothing is admitted.
    parameterNotFoundAction: Deny
  matchResources:
    namespaceSelector:
      matchExpressions:
        - {{ toJson .selector }}
{{- end }}
