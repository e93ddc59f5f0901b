# SPDX-License-Identifier: Apache-2.0
# targets.sh KUBECTL KUBECONFIG RELEASE FILE: writes the targets of the pods of a release into a file for Prometheus, again and again,
# because pods are replaced. Debian's Prometheus is built without the discovery of Kubernetes.
set -eu
kubectl=$1 kubeconfig=$2 release=$3 file=$4
template='{{- $comma := "" -}}
[{{range .items}}{{$pod := .}}{{if .status.podIP}}{{range .spec.containers}}{{$container := .name}}{{range .ports}}
{{- if or (eq .name "plugin-http") (eq .name "controller-http") (eq .name "mps-http")}}{{$comma}}
{"targets": ["{{$pod.status.podIP}}:{{.containerPort}}"], "labels": {"node": "{{$pod.spec.nodeName}}", "container": "{{$container}}",
"namespace": "{{$pod.metadata.namespace}}", "pod": "{{$pod.metadata.name}}"}}
{{- $comma = ","}}{{end}}{{end}}{{end}}{{end}}{{end}}]'
while :; do
    if "$kubectl" --kubeconfig "$kubeconfig" get pods -A -l "app.kubernetes.io/name=$release" -o go-template="$template" >"$file.new"; then
        mv "$file.new" "$file"
    fi
    sleep 5
done
