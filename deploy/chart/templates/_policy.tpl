{{/* SPDX-License-Identifier: Apache-2.0 */}}

{{/* Restricts a policy to requests of the driver's service account. */}}
{{- define "gpu-dra-driver.policy.matchConditions" -}}
matchConditions:
  - name: written-by-this-driver
    expression: >-
      request.userInfo.username == "system:serviceaccount:{{ .Release.Namespace }}:{{ include "gpu-dra-driver.serviceAccountName" . }}"
{{- end }}

{{/* The node name that the API server adds to tokens bound to a pod; empty for other tokens. */}}
{{- define "gpu-dra-driver.policy.tokenNode" -}}
- name: tokenNode
  expression: >-
    request.userInfo.?extra[?'authentication.kubernetes.io/node-name'][0].orValue('')
{{- end }}

{{/* The binding that enables the policy of a "name". */}}
{{- define "gpu-dra-driver.policy.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "gpu-dra-driver.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}
